"""Layers over masked edges: the shapes of torch.nn, with weights that are made and never stored.

Each is a torch.nn layer's forward over `self.edges` (supermask/edges/searched.py). The dtype of the weights follows
autocast, or the input where autocast is off. Usable alone in any module:

    layer = SupermaskLinear(784, 10, seed=0, remaining=0.3)
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, TypedDict, Unpack

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor, nn

from supermask.edges.base import Edges
from supermask.edges.draws import Magnitude, ScoreInit, WeightInit
from supermask.edges.rules import Rule
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import popcount, unpack

Bias = Tensor | nn.Parameter | None


class SearchOptions(TypedDict, total=False):
    """What a layer hands to `SearchedEdges`; only `seed` has no default."""

    seed: int
    layer: int
    remaining: float
    weights: WeightInit
    scores: ScoreInit
    magnitude: Magnitude
    rule: Rule | None
    pinned: bool
    device: torch.device | str | None


class MaskedLayer(nn.Module):
    """A layer whose weight is made by its edges.

    Attributes:
        edges: makes the weight.
        bias: None, a fixed tensor (buffer), or a trained nn.Parameter.
    """

    turned: ClassVar[bool] = False
    """Whether the dense layer has its weight as [in, out], and the edges as [out, in]."""
    besides: ClassVar[tuple[str, ...]] = ()
    """Tensors that the dense layer has beside weight and bias, and this one too."""

    edges: Edges
    bias: Tensor | None

    def _own(self, shape: Sequence[int], edges: Edges | None, search: SearchOptions, bias: Bias) -> None:
        if unknown := sorted(search.keys() - SearchOptions.__annotations__.keys()):
            raise TypeError(
                f"{type(self).__name__} has no argument {', '.join(unknown)}: beside its own it takes those of "
                f"SearchedEdges, {', '.join(SearchOptions.__annotations__)}"
            )
        if edges is None and "seed" not in search:
            raise TypeError(f"{type(self).__name__} needs seed, which its weights are made from, or edges")
        if edges is not None and (search or edges.shape != tuple(shape)):
            raise ValueError(
                f"edges of shape {edges.shape} for a weight of shape {tuple(shape)}, with {sorted(search)}: give edges "
                "of the layer's shape, or the arguments of SearchedEdges, not both"
            )
        self.edges = SearchedEdges(shape, **search) if edges is None else edges
        if bias is not None and not isinstance(bias, Tensor):
            raise TypeError(f"bias={bias!r}: expected None, a fixed tensor, or an nn.Parameter to train it")
        if bias is not None and bias.shape != (self.outputs,):
            raise ValueError(f"bias has shape {tuple(bias.shape)}: expected ({self.outputs},), one an output")
        if bias is None or isinstance(bias, nn.Parameter):
            self.register_parameter("bias", bias)
        else:
            self.register_buffer("bias", bias)

    @property
    def outputs(self) -> int:
        """Output features or channels."""
        raise NotImplementedError

    def dead_outputs(self, mask: Tensor) -> int:
        """Outputs without a single edge in `mask`, packed bits of the layer's edges: they have no input."""
        return int((popcount(mask) == 0).sum())

    @property
    def remaining(self) -> float:
        """Fraction of the edges that searched edges keep; set it between steps, nothing is compiled again."""
        return self._searched().remaining

    @remaining.setter
    def remaining(self, rate: float) -> None:
        self._searched().remaining = rate

    def _searched(self) -> SearchedEdges:
        if not isinstance(self.edges, SearchedEdges):
            raise ValueError(f"{type(self.edges).__name__} has no rate to read or set: its mask is final")
        return self.edges

    @property
    def weight(self) -> Tensor:
        """Effective weights theta0 * m, in the autocast dtype or float32.

        Modules that read a layer's weight in place of calling it (torchvision's Swin) search it all the same: read in
        training mode with gradients on, its selected edges count as those of a forward.
        """
        device = self.edges.constant.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else torch.float32
        return self.edges(dtype, record=torch.is_grad_enabled())

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias to apply to `x`."""
        dtype, bias = self._typed(x)
        return self.edges(dtype), bias

    def _typed(self, x: Tensor) -> tuple[torch.dtype, Tensor | None]:
        """The dtype of the weight to apply to `x`, and the bias in it."""
        autocast = torch.is_autocast_enabled(x.device.type)
        dtype = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
        if not dtype.is_floating_point:
            raise TypeError(f"input of {type(self).__name__} is {x.dtype}: expected a floating-point tensor")
        bias = self.bias
        return dtype, bias if bias is None else bias.to(dtype)


class SupermaskLinear(MaskedLayer):
    """nn.Linear over searched edges: x [..., in_features] to [..., out_features].

    Args:
        in_features, out_features: as in nn.Linear.
        bias: None, a fixed tensor [out_features], or an nn.Parameter to train it.
        edges: where the weights come from; by default `SearchedEdges` made from the keyword arguments that follow.
        **search: of `SearchedEdges`: seed (required), layer, remaining, weights, scores, magnitude, rule,
            pinned, device.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: Bias = None,
        *,
        edges: Edges | None = None,
        **search: Unpack[SearchOptions],
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._own((out_features, in_features), edges, search, bias)

    @classmethod
    def from_dense(cls, dense: nn.Linear, edges: Edges, bias: Bias) -> Self:
        """`dense` over `edges`; its own weights are not used."""
        return cls(dense.in_features, dense.out_features, bias, edges=edges)

    @property
    def outputs(self) -> int:
        return self.out_features

    def forward(self, x: Tensor) -> Tensor:
        dtype, bias = self._typed(x)
        return self.edges.linear(x, bias, dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class _Conv(MaskedLayer):
    """What convolutions of one to three dimensions share; arguments as in torch.nn."""

    dims: ClassVar[int]
    transposed: ClassVar[bool] = False
    _convolve: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: Bias = None,
        padding_mode: str = "zeros",
        *,
        edges: Edges | None = None,
        **search: Unpack[SearchOptions],
    ) -> None:
        super().__init__()
        modes = ("zeros",) if self.transposed else ("zeros", "reflect", "replicate", "circular")
        if padding_mode not in modes:
            raise ValueError(f"padding_mode={padding_mode!r}: expected one of {', '.join(map(repr, modes))}")
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} divides not both of {in_channels} and {out_channels} channels")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.dilation = (self._each(v) for v in (kernel_size, stride, dilation))
        self.padding = padding if isinstance(padding, str) else self._each(padding)
        self.padding_mode = padding_mode
        ends = (in_channels, out_channels // groups) if self.transposed else (out_channels, in_channels // groups)
        self._own((*ends, *self.kernel_size), edges, search, bias)

    @classmethod
    def from_dense(cls, dense: Any, edges: Edges, bias: Bias) -> Self:
        """`dense`, the torch.nn layer of the same kind, over `edges`; its own weights are not used."""
        return cls(
            dense.in_channels,
            dense.out_channels,
            dense.kernel_size,
            dense.stride,
            dense.padding,
            dense.dilation,
            dense.groups,
            bias,
            dense.padding_mode,
            edges=edges,
        )

    @property
    def outputs(self) -> int:
        return self.out_channels

    @classmethod
    def _each(cls, value: int | Sequence[int]) -> tuple[int, ...]:
        values = (value,) * cls.dims if isinstance(value, int) else tuple(value)
        if len(values) != cls.dims:
            raise ValueError(f"{value}: expected one integer or {cls.dims}")
        return values

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, self._pads(), mode=self.padding_mode)
            padding = (0,) * self.dims
        return self._apply_to(x, padding)

    def _apply_to(self, x: Tensor, padding: tuple[int, ...] | str) -> Tensor:
        return type(self)._convolve(x, *self.parts(x), self.stride, padding, self.dilation, self.groups)

    def _pads(self) -> list[int]:
        """Padding before and after each dimension, last dimension first, as F.pad takes it."""
        pads: list[int] = []
        for d in reversed(range(self.dims)):
            if isinstance(self.padding, str):
                total = self.dilation[d] * (self.kernel_size[d] - 1) if self.padding == "same" else 0
                pads += [total // 2, total - total // 2]
            else:
                pads += [self.padding[d], self.padding[d]]
        return pads

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}"
        )


class SupermaskConv1d(_Conv):
    """nn.Conv1d over searched edges; see `SupermaskLinear` for `bias`, `edges` and the keyword arguments."""

    dims = 1
    _convolve = staticmethod(F.conv1d)


class SupermaskConv2d(_Conv):
    """nn.Conv2d over searched edges; see `SupermaskLinear` for `bias`, `edges` and the keyword arguments."""

    dims = 2
    _convolve = staticmethod(F.conv2d)

    def _apply_to(self, x: Tensor, padding: tuple[int, ...] | str) -> Tensor:
        dtype, bias = self._typed(x)
        return self.edges.conv2d(x, bias, dtype, self.stride, padding, self.dilation, self.groups)


class SupermaskConv3d(_Conv):
    """nn.Conv3d over searched edges; see `SupermaskLinear` for `bias`, `edges` and the keyword arguments."""

    dims = 3
    _convolve = staticmethod(F.conv3d)


class _ConvTranspose(_Conv):
    """Weight [in, out / groups, ...], so that rows are input channels; fan-in as PyTorch computes it, from cols."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: Bias = None,
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        *,
        edges: Edges | None = None,
        **search: Unpack[SearchOptions],
    ) -> None:
        place = in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        super().__init__(*place, edges=edges, **search)
        self.output_padding = self._each(output_padding)

    @classmethod
    def from_dense(cls, dense: Any, edges: Edges, bias: Bias) -> Self:
        """`dense`, the torch.nn layer of the same kind, over `edges`; its own weights are not used."""
        return cls(
            dense.in_channels,
            dense.out_channels,
            dense.kernel_size,
            dense.stride,
            dense.padding,
            dense.output_padding,
            dense.groups,
            bias,
            dense.dilation,
            dense.padding_mode,
            edges=edges,
        )

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        extra = self.output_padding if output_size is None else self._extra(x, output_size)
        return type(self)._convolve(x, *self.parts(x), self.stride, self.padding, extra, self.groups, self.dilation)

    def dead_outputs(self, mask: Tensor) -> int:
        # Rows are inputs, and the outputs of a group come first among the columns.
        bits = unpack(mask, self.edges.cols)
        alive = reduce(bits, "(g i) (o k) -> g o", "any", g=self.groups, o=self.edges.shape[1])
        return int((~alive).sum())

    def _extra(self, x: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        """Output padding that gives the spatial size asked for."""
        sizes = tuple(output_size)[-self.dims :]
        extra = []
        for d, (size, given) in enumerate(zip(sizes, x.shape[-self.dims :], strict=True)):
            span = self.dilation[d] * (self.kernel_size[d] - 1)
            least = (given - 1) * self.stride[d] - 2 * int(self.padding[d]) + span + 1
            most = least + max(self.stride[d], self.dilation[d]) - 1
            if not least <= size <= most:
                raise ValueError(f"output_size {sizes}: dimension {d} can be {least} to {most}, not {size}")
            extra.append(size - least)
        return tuple(extra)


class SupermaskConvTranspose1d(_ConvTranspose):
    """nn.ConvTranspose1d over searched edges."""

    dims = 1
    _convolve = staticmethod(F.conv_transpose1d)


class SupermaskConvTranspose2d(_ConvTranspose):
    """nn.ConvTranspose2d over searched edges."""

    dims = 2
    _convolve = staticmethod(F.conv_transpose2d)


class SupermaskConvTranspose3d(_ConvTranspose):
    """nn.ConvTranspose3d over searched edges."""

    dims = 3
    _convolve = staticmethod(F.conv_transpose3d)


MaskedForm = type[SupermaskLinear] | type[_Conv]

DENSE_FORMS: dict[type[nn.Module], MaskedForm] = {
    nn.Linear: SupermaskLinear,
    nn.Conv1d: SupermaskConv1d,
    nn.Conv2d: SupermaskConv2d,
    nn.Conv3d: SupermaskConv3d,
    nn.ConvTranspose1d: SupermaskConvTranspose1d,
    nn.ConvTranspose2d: SupermaskConvTranspose2d,
    nn.ConvTranspose3d: SupermaskConvTranspose3d,
}
