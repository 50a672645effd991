"""The edges of one layer: theta0, and what every source of effective weights has.

`SearchedEdges` (supermask/edges/searched.py) learns a score an edge and selects the best; `PackedEdges`
(supermask/edges/packed.py) holds the mask of a finished search, one bit an edge. Both make the weights from the seed
when they are asked for. A layer (supermask/networks/layers.py) is a product or a convolution over whatever its edges
make."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask.checks import SupermaskError, as_integer, check_choice
from supermask.edges.draws import WEIGHTS, WeightInit, real_weights
from supermask.edges.exact import Known, checksum
from supermask.edges.identity import Value, decode, encode
from supermask.edges.stored import NotStorable, Stored
from supermask.kernels.base.bits import count_bits, words_per_row
from supermask.kernels.base.philox import as_int64, check_layer, sign_words
from supermask.kernels.base.theta import Theta

Ints = tuple[int, ...]


_AVERAGED = (
    "were averaged with others, as if they were numbers: average with use_buffers=False, which copies them, or begin a "
    "new average when a cycle begins"
)


class AveragedError(SupermaskError, RuntimeError):
    """Bits that were averaged with other bits, of which there is no average."""


class Edges(nn.Module):
    """theta0 of one layer, and what every source of effective weights has.

    A layer's weight of shape [out, ...] is the matrix rows x cols = out x (everything else); cols is its fan-in.

    Attributes:
        shape: of the weight.
        seed, layer, generation: what theta0 is drawn from (kernels/base/philox.py).
        weights: the distribution of theta0.
        real: how real-valued weights are drawn, as in supermask.kernels.base.theta.Theta; None for constants.
    """

    exact: ClassVar[tuple[str, ...]] = ()
    """Buffers of integers that are state, which no average may change (supermask/edges/exact.py)."""

    constant: Tensor
    signs: Tensor | None
    source: Tensor
    """The identity, and a checksum of `exact`."""

    def __init__(
        self,
        shape: Sequence[int],
        *,
        seed: int,
        layer: int,
        generation: int,
        weights: WeightInit,
        constant: float,
        device: torch.device | str | None,
    ) -> None:
        super().__init__()
        seed, layer = as_integer("seed", seed), as_integer("layer", layer)
        as_int64(seed)
        check_layer(layer)
        check_choice("weights", weights, WeightInit)
        if min(shape, default=0) < 1:
            raise ValueError(f"weight shape {tuple(shape)}: a masked layer needs at least one edge")
        shape = tuple(as_integer("weight shape", size) for size in shape)
        self.shape = shape
        self.rows, self.cols = shape[0], math.prod(shape[1:])
        self.seed, self.layer, self.generation = seed, layer, generation
        self.weights: WeightInit = weights
        self.real = real_weights(weights, self.cols)
        self.register_buffer("constant", torch.tensor([constant], device=device), persistent=False)
        self.register_buffer("signs", None, persistent=False)
        self._known: Known | None = None

    @property
    def count(self) -> int:
        """Edges of the layer."""
        return self.rows * self.cols

    def agreed(self) -> list[Tensor]:
        """What all processes of a run must hold alike, to the bit."""
        return [self.mask()]

    def mask(self) -> Tensor:
        """Which edges are selected: packed bits, int32 [rows, words] (kernels/base/bits.py)."""
        raise NotImplementedError

    def forward(self, dtype: torch.dtype, *, record: bool = True) -> Tensor:
        """Effective weights theta0 * m, of the layer's shape, in `dtype`.

        In training mode the selected edges are recorded where `ever` is set, unless this is only a look at the weights
        (`record=False`).
        """
        raise NotImplementedError

    def linear(self, x: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        """x [..., cols] to [..., rows], with weights in `dtype`."""
        return F.linear(x, self(dtype), bias)

    def conv2d(
        self, x: Tensor, bias: Tensor | None, dtype: torch.dtype, stride: Ints, padding: Ints | str, dilation: Ints,
        groups: int,
    ) -> Tensor:  # fmt: skip
        """As torch.nn.functional.conv2d, with weights in `dtype`."""
        return F.conv2d(x, self(dtype), bias, stride, padding, dilation, groups)

    def theta(self) -> Theta:
        """theta0 as the kernels take it."""
        place = self.seed, self.layer, self.generation
        return Theta(*place, self.constant, self.signs, real=self.real)

    def _sign_words(self) -> Tensor | None:
        """The packed signs to keep: those of the seed, turned where edges are flipped.

        None where none are read (real-valued weights) or the kernels make the seed's own as quickly (not on CPU, where
        making them costs more than a bit an edge), and on the meta device.
        """
        kind, flips = self.constant.device.type, self._flipped()
        if self.real or (WEIGHTS[self.weights].signed and (kind == "meta" or (flips is None and kind != "cpu"))):
            return None
        return self._drawn_signs(flips)

    def _drawn_signs(self, flips: Tensor | None) -> Tensor:
        """The packed signs of constants, made anew."""
        device = self.constant.device
        if not WEIGHTS[self.weights].signed:
            return torch.zeros(self.rows, words_per_row(self.cols), dtype=torch.int32, device=device)
        place = self.seed, self.layer, self.rows, self.cols
        drawn = sign_words(*place, generation=self.generation, device=device)
        return drawn if flips is None else drawn ^ flips

    def _know(self, *, copied: bool = True) -> None:
        """The integers are as they should be; called where they are made, and after they were written to."""
        if self._is_real():
            with torch.no_grad(), torch.inference_mode(False):
                buffers = self._exact()
                total = checksum(buffers, self.source.device)
                self.source[-1:] = total
                self._known = Known(self.source, self.constant, buffers, total, copied=copied)

    def _integers(self) -> list[Tensor]:
        """What stays where it is unless the layer goes to another device."""
        return [buffer for buffer in self.buffers(recurse=False) if not buffer.is_floating_point()]

    def _exact(self) -> dict[str, Tensor | None]:
        return {name: getattr(self, name) for name in self.exact}

    def check_exact(self) -> None:
        """Put integers right that an average rounded, and what is made of them.

        Raises:
            AveragedError: they were averaged with others.
        """
        known = self._known
        if known is None or not self._is_real():
            return
        buffers = self._exact()
        writes = known.writes(buffers)
        if writes:
            own = encode(self._identity().values(), self.source.device)
            with torch.no_grad():
                if wrong := known.put_right(buffers, self.source[-1:], writes):
                    raise AveragedError(f"{wrong} of a masked layer {tuple(self.shape)} {_AVERAGED}")
                self.source[: len(own)] = own
                self.constant.fill_(self._made_constant())
                self._remake()
        if writes or known.changed(buffers):
            self._know(copied=known.copied)

    def train(self, mode: bool = True) -> Self:
        self.check_exact()
        return super().train(mode)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self.exact and (known := self.__dict__.get("_known")) is not None:
            self._know(copied=known.copied)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which find out for themselves what they hold."""
        return {**self.__dict__, "_known": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """For copies, which averages are made in."""
        super().__setstate__(state)
        self._know()

    def stored(self) -> Stored:
        """What a ticket keeps of these edges, as they are at this moment.

        Raises:
            NotStorable: a ticket could not make the same weights again.
        """
        raise NotStorable(f"{type(self).__name__} does not say what is stored of it: give it a method `stored`")

    def check_made(self) -> None:
        """Nothing, if what products read beside the state is what the seed and the settings make.

        It is never stored, and made again by whoever loads a ticket or a state dict.

        Raises:
            NotStorable: it was written to.
        """
        if not self._is_real():
            return
        found = float(self.constant)
        made = not math.isnan(found)  # else the state is still to be loaded
        own = encode(self._identity().values(), torch.device("cpu")).tolist()
        if made and self.source.tolist()[: len(own)] != own:
            raise NotStorable(
                f"its seed, layer or distribution was changed after it was made ({self.extra_repr()}): make edges of "
                "these anew"
            )
        if wrong := self._wrong_signs():
            raise NotStorable(
                f"{wrong} of {self.count} signs are not those that the seed and the flips give: `signs` is made from "
                "these and never stored; hand turned signs to PackedEdges as flips="
            )
        if made and found != (right := float(self.constant.new_tensor(self._made_constant()))):
            raise NotStorable(
                f"constant {found}: these edges make theirs {right}, and what is written into `constant` is made again "
                "and never stored; hand a constant of your own to PackedEdges as constant="
            )

    def _is_real(self) -> bool:
        """Whether there is memory to look at: not on the meta device, nor while torch traces."""
        return type(self.constant) is Tensor and not self.constant.is_meta and not torch.compiler.is_compiling()

    @torch.no_grad()
    def _wrong_signs(self) -> int:
        """Signs kept that are not what they are made from; none where none are kept or read."""
        if self.signs is None or self.real:
            return 0
        return count_bits((self.signs ^ self._drawn_signs(self._flipped())).cpu())

    def _flipped(self) -> Tensor | None:
        """Edges whose sign is not the seed's, packed."""
        return None

    def _made_constant(self) -> float:
        """The constant that the settings make."""
        raise NotImplementedError

    @torch.no_grad()
    @torch.inference_mode(False)
    def _keep(self) -> None:
        """Make what is kept beside the state; called where the edges are whole, and after they were moved."""
        self.signs = self._sign_words()

    def _remake(self) -> None:
        """Make again what is made of the state, which is another."""
        self._keep()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Edges":
        """Move between devices, but keep dtypes and stay row-major under `.half()`, channels_last and the like.

        The dtype of the effective weights follows the layer's input or autocast, not these tensors.
        """

        def move(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return fn(tensor)
            as_bits = {4: torch.int32, 8: torch.int64}[tensor.itemsize]
            moved = fn(tensor.detach().view(as_bits)).view(tensor.dtype)
            return moved.contiguous().view(-1).view(moved.shape)  # also along axes of length one

        nowhere, known, before = self.constant.is_meta, self._known, self._integers()
        super()._apply(move, recurse)
        if nowhere and not self.constant.is_meta:
            self.constant.fill_(math.nan)  # until the state is loaded
        if any(one is not two for one, two in zip(before, self._integers(), strict=True)):
            self._keep()
            if known is not None:
                self._know(copied=known.copied)
        if self.constant.is_shared():  # by share_memory(): what was made again is to be, too
            for buffer in self.buffers(recurse=False):
                buffer.share_memory_()
        return self

    def _identity(self) -> dict[str, Value]:
        """What a state dict must agree in to be of these edges, by name."""
        return {"seed": self.seed, "layer": self.layer, "generation": self.generation, "weights": self.weights}

    def _keep_source(self) -> None:
        """The identity as a tensor, so that it travels with the state dict."""
        own = encode(self._identity().values(), self.constant.device)
        self.register_buffer("source", torch.cat([own, own.new_zeros(1)]))

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        if not keep_vars:  # which gives the tensors themselves, and saves nothing
            self.check_exact()
            try:
                self.check_made()
            except NotStorable as error:
                raise NotStorable(f"state dict of {prefix.rstrip('.') or type(self).__name__!r}: {error}") from error
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Mapping[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        source = state_dict.get(prefix + "source")
        own = self._identity()
        found = None if source is None or source.is_meta else source.tolist()[: len(own)]
        if found is not None and found != encode(own.values(), torch.device("cpu")).tolist():
            theirs = decode(found, own.values())
            error_msgs.append(
                f"{prefix}source: the state dict is of edges with ({', '.join(own)}) = {theirs}, these have "
                f"{tuple(own.values())}: convert with that seed and those choices"
            )
            return
        if found is not None:  # the checksum is made again of what is loaded; older state dicts have none
            checked = encode([*own.values(), 0], self.source.device)  # these edges' own may come from the meta device
            state_dict = {**state_dict, prefix + "source": checked}
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        unread = self.signs is None and self._flipped() is not None  # on a GPU, where none were kept without flips
        if source is not None and self._is_real() and (unread or self._wrong_signs()):
            self._keep()

    def _unaveraged(self, state_dict: Mapping[str, Any], prefix: str, error_msgs: list[str]) -> Mapping[str, Any]:
        """`state_dict`, with the own bits in place of averages of these with themselves; averages with others are an
        error."""
        source, known, count = state_dict.get(prefix + "source"), self._known, len(self._identity())
        if source is None or source.is_meta or len(source) != count + 1:
            return state_dict
        buffers = {name: state_dict.get(prefix + name) for name in self.exact}
        if any(bits is not None and bits.is_meta for bits in buffers.values()):
            return state_dict
        found = source[count:].to("cpu", torch.int64)
        # One beside bits that were set by hand is no longer theirs, but was not rounded either.
        if torch.equal(found, checksum(buffers, found.device)) or int(found) % 2:
            return state_dict
        if known is None or not known.unchanged(found):
            error_msgs.append(f"{prefix}: bits {_AVERAGED}")
            return state_dict
        held = {prefix + name: bits for name, bits in self._exact().items() if bits is not None}
        return {**state_dict, **held, prefix + "source": self.source}

    def extra_repr(self) -> str:
        return f"{tuple(self.shape)}, weights={self.weights!r}, seed={self.seed}, layer={self.layer}"
