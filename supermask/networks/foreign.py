"""Masked forms of layers of other packages, which are told by the file that defines them and their name: none of these
packages is imported, and a subclass is another layer."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask.edges.base import Edges
from supermask.networks.layers import DENSE_FORMS, Bias, MaskedForm, SupermaskConv2d, SupermaskLinear


class TransposedLinear(SupermaskLinear):
    """transformers' Conv1D, which is a linear layer with a weight [in_features, out_features]."""

    turned = True

    @property
    def nx(self) -> int:
        """As transformers calls the input features."""
        return self.in_features

    @property
    def nf(self) -> int:
        """As transformers calls the output features."""
        return self.out_features

    @property
    def weight(self) -> Tensor:
        """Effective weights as the dense layer has them, [in_features, out_features]."""
        return super().weight.T

    @classmethod
    def from_dense(cls, dense: Any, edges: Edges, bias: Bias) -> Self:
        """`dense` over `edges`; its own weights are not used."""
        return cls(dense.weight.shape[0], dense.weight.shape[1], bias, edges=edges)


class SameConv2d(SupermaskConv2d):
    """timm's Conv2dSame: padded so that an input of n gives an output of ceil(n / stride), as TensorFlow pads it.

    Attributes:
        same: whether it is padded so, at each call, or as other convolutions.
    """

    same: bool = True

    def _apply_to(self, x: Tensor, padding: tuple[int, ...] | str) -> Tensor:
        return super()._apply_to(self._padded(x), padding)

    def _padded(self, x: Tensor) -> Tensor:
        if not self.same:
            return x
        pads: list[int] = []
        for d in (1, 0):
            size, stride = x.shape[2 + d], self.stride[d]
            reach = (-(-size // stride) - 1) * stride + (self.kernel_size[d] - 1) * self.dilation[d] + 1
            total = max(reach - size, 0)
            pads += [total // 2, total - total // 2]
        return F.pad(x, pads)


class StandardisedConv2d(SameConv2d):
    """timm's StdConv2d and ScaledStdConv2d, and their forms padded as TensorFlow does: the weights of each output
    get mean 0 and variance 1 and are scaled (Qiao et al. 2019; Brock et al. 2021). Masked weights do, too.

    Attributes:
        eps: added to the variances.
        gain: scale of each output, [out, 1, 1, 1], or None.
        scale: of all outputs.
    """

    besides = ("gain",)
    eps: float
    gain: nn.Parameter | None
    scale: float

    @classmethod
    def from_dense(cls, dense: Any, edges: Edges, bias: Bias) -> Self:
        """`dense` over `edges`; its own weights are not used."""
        layer = super().from_dense(dense, edges, bias)
        gain = getattr(dense, "gain", None)
        layer.register_parameter("gain", None if gain is None else nn.Parameter(gain.detach().clone()))
        layer.eps, layer.scale, layer.same = dense.eps, getattr(dense, "scale", 1.0), getattr(dense, "same_pad", False)
        return layer

    def _apply_to(self, x: Tensor, padding: tuple[int, ...] | str) -> Tensor:
        dtype, bias = self._typed(x)
        weight = self.edges(torch.float32)
        scale = None if self.gain is None else (self.gain * self.scale).view(-1)
        rows = weight.reshape(1, self.out_channels, -1)
        even = F.batch_norm(rows, None, None, weight=scale, training=True, momentum=0.0, eps=self.eps)
        weight = even.reshape_as(weight).to(dtype)
        return F.conv2d(self._padded(x), weight, bias, self.stride, padding, self.dilation, self.groups)


_FORMS: dict[tuple[str, str], MaskedForm] = {
    ("transformers.pytorch_utils", "Conv1D"): TransposedLinear,
    ("timm.layers.linear", "Linear"): SupermaskLinear,  # which is torch's but for TorchScript
    ("timm.layers.conv2d_same", "Conv2dSame"): SameConv2d,
    ("timm.layers.std_conv", "StdConv2d"): StandardisedConv2d,
    ("timm.layers.std_conv", "StdConv2dSame"): StandardisedConv2d,
    ("timm.layers.std_conv", "ScaledStdConv2d"): StandardisedConv2d,
    ("timm.layers.std_conv", "ScaledStdConv2dSame"): StandardisedConv2d,
}


def masked_form(module: nn.Module) -> MaskedForm | None:
    """The masked form of a layer of this very type, by torch or another package."""
    kind = type(module)
    return DENSE_FORMS.get(kind) or _FORMS.get((kind.__module__, kind.__qualname__))
