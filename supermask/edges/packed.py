"""The edges of a finished search: a packed mask and a seed, and the products made of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supermask.checks import check_choice
from supermask.edges.base import Edges, Ints
from supermask.edges.draws import WEIGHTS, WeightInit
from supermask.edges.exact import version
from supermask.edges.identity import Value
from supermask.edges.making import Making, choose
from supermask.edges.stored import NotStorable, Stored, check_nested, coat_names
from supermask.kernels.base import native
from supermask.kernels.base.bits import check_words
from supermask.kernels.base.launch import unwatched
from supermask.kernels.base.theta import BITS_DTYPE
from supermask.kernels.masked_conv2d.op import masked_conv2d
from supermask.kernels.masked_mm.codes import interleave
from supermask.kernels.masked_mm.cpu import by_tables
from supermask.kernels.masked_mm.op import masked_mm
from supermask.kernels.packed_weight.op import packed_weight

SIGNED = tuple(name for name, kind in WEIGHTS.items() if kind.signed)  # weights of which a sign can flip


class PackedEdges(Edges):
    """One bit an edge, and what the device multiplies fastest from: on GPU nothing more; on CPU a sign bit an edge, and
    for a linear layer, where the C extension is used, mask and sign interleaved (kernels/masked_mm/codes.py), 1.8 bits.

    Args:
        mask: packed int32 [rows, words]; or [coats, rows, words], each coat within the one before it: a weight counts
            the coats that select it.
        flips: packed int32 [rows, words]: edges whose sign is not the seed's (weights that were re-drawn one by one).
        making: how a call comes by its weights (supermask/edges/making.py); "auto" chooses at each.
        constant: magnitude of the weights.

    Raises:
        ValueError: an unknown `making`, "on_the_fly" for weights that are no constant with a sign, or flips for them.
    """

    exact = ("packed", "flips")

    packed: Tensor
    flips: Tensor | None
    weight: Tensor | None
    codes: Tensor | None

    def __init__(
        self,
        shape: Sequence[int],
        mask: Tensor,
        *,
        flips: Tensor | None = None,
        seed: int,
        layer: int,
        generation: int = 0,
        weights: WeightInit,
        constant: float,
        making: Making = "auto",
        device: torch.device | str | None = None,
    ) -> None:
        check_choice("making", making, Making)
        self.making: Making = making
        super().__init__(
            shape, seed=seed, layer=layer, generation=generation, weights=weights, constant=constant, device=device
        )
        if making == "on_the_fly" and not self._fused:
            raise ValueError(
                f"making='on_the_fly' with weights={weights!r}: products make weights that are a constant with a sign; "
                "use 'materialised', which makes these at each call"
            )
        if flips is not None and weights not in SIGNED:
            raise ValueError(f"flips with weights={weights!r}: they turn the signs of {' or '.join(SIGNED)}")
        for name, bits in (("mask", mask if mask.ndim == 2 else mask.reshape(-1, mask.shape[-1])), ("flips", flips)):
            if bits is not None:
                check_words(name, bits, self.cols)
        planes = {"mask": mask.shape[-2], "flips": self.rows if flips is None else len(flips)}
        if wrong := [name for name, rows in planes.items() if rows != self.rows]:
            raise ValueError(f"{wrong[0]} has {planes[wrong[0]]} rows: a weight of shape {self.shape} has {self.rows}")
        self._magnitude = float(np.float32(constant))
        self._keep_source()
        single = mask.ndim == 3 and len(mask) == 1
        self.register_buffer("packed", (mask[0] if single else mask).to(device=self.constant.device))
        self.register_buffer("flips", None if flips is None else flips.to(device=self.constant.device))
        self.register_buffer("weight", None, persistent=False)
        self.register_buffer("codes", None, persistent=False)
        self._made_of = self._bits()
        if making == "cached":
            self._cache()
        else:
            self._keep()
        self._know(copied=False)  # which would take a bit an edge more; a copy of these edges has them

    @classmethod
    def of(
        cls, stored: Stored, shape: Sequence[int], *, seed: int, layer: int, generation: int, weights: WeightInit,
        making: Making = "auto", device: torch.device | str | None = None,
    ) -> "PackedEdges":  # fmt: skip
        """The edges that a ticket keeps so."""
        coats = stored.coats
        return cls(
            shape, coats[0] if len(coats) == 1 else torch.stack(coats), flips=stored.planes.get("flips"), seed=seed,
            layer=layer, generation=generation, weights=weights, constant=stored.values["constant"], making=making,
            device=device,
        )  # fmt: skip

    @torch.no_grad()
    def stored(self) -> Stored:
        self.check_exact()
        self.check_made()
        coats = self.coats
        check_nested(coats)
        planes = dict(zip(coat_names(len(coats)), coats, strict=True))
        if self.flips is not None:
            # Of an edge that no coat selects the sign does not matter, and is not stored.
            planes["flips"] = self.flips & coats[0]
        return Stored(planes=planes, values={"constant": float(self.constant)})

    @torch.no_grad()
    def check_made(self) -> None:
        if not self._is_real():
            return
        self._follow()
        super().check_made()
        theta = self.theta()._replace(signs=self._sign_words())
        if self.weight is not None and not torch.equal(self.weight, packed_weight(self.packed, self.shape, theta)):
            raise NotStorable(
                "its cached weights are not those of its mask: `weight` is made again and never stored; hand what "
                "makes other weights to PackedEdges as mask, flips= or constant="
            )
        codes = self._interleaved()
        if self.codes is not None and codes is not None and not torch.equal(self.codes, codes):
            raise NotStorable("its codes are not those of its mask: `codes` are made again and never stored")

    def _flipped(self) -> Tensor | None:
        return self.flips

    def _made_constant(self) -> float:
        return self._magnitude

    @torch.no_grad()
    @torch.inference_mode(False)
    def _cache(self) -> None:
        """Keep dense weights of the bits as they are."""
        self.signs = self._sign_words()
        self.weight = packed_weight(self.packed, self.shape, self.theta())
        self._keep()

    @torch.no_grad()
    @torch.inference_mode(False)
    def _keep(self) -> None:
        """Sign words and codes of the bits as they are; neither where products read dense weights alone."""
        self._made_of = self._bits()
        dense = self.making == "cached" and self.weight is not None
        self.signs = None if dense else self._sign_words()
        self.codes = self._interleaved()

    def _interleaved(self) -> Tensor | None:
        """Mask and signs as one, for the products of a linear layer by the C extension."""
        if self.making not in ("auto", "on_the_fly") or len(self.shape) != 2 or self.packed.ndim != 2:
            return None
        if self.signs is None or self.packed.device.type != "cpu" or not native.usable():
            return None
        return interleave(self.packed, self.signs, self.cols)

    def _follow(self) -> None:
        """Make again what was made of the mask if the mask is another, or was written to."""
        if torch.compiler.is_compiling():
            return
        if self._known is not None and self._known.touched:
            self.check_exact()
        if self.codes is None and self.weight is None and self.flips is None:
            return
        if all(a is b and one == two for (a, one), (b, two) in zip(self._made_of, self._bits(), strict=True)):
            return
        self._remake()

    def _remake(self) -> None:
        if self.weight is None or self.weight.is_meta:
            self._keep()
        else:
            self._cache()

    def _bits(self) -> list[tuple[Tensor | None, int]]:
        """The bits that others are made of, and how often torch has counted a write into them."""
        return [(bits, 0 if bits is None else version(bits)) for bits in (self.packed, self.flips)]

    @property
    def _fused(self) -> bool:
        """Whether there is a product for these weights that makes them inside: for a constant with a sign."""
        return self.real is None

    def _identity(self) -> dict[str, Value]:
        return super()._identity() | {"constant": self._magnitude}

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        errors = rest[-1]
        told = len(errors)
        state = self._unaveraged(state_dict, prefix, errors)
        if len(errors) > told:
            return
        super()._load_from_state_dict(state, prefix, *rest)
        if prefix + "packed" not in state:
            return
        self.constant.fill_(self._magnitude)
        self._remake()
        self._know(copied=self._known is not None and self._known.copied)

    @property
    def coats(self) -> Tensor:
        """All coats, packed int32 [coats, rows, words]."""
        return self.packed if self.packed.ndim == 3 else self.packed[None]

    def mask(self) -> Tensor:
        return self.coats[0]

    def forward(self, dtype: torch.dtype = torch.float32, *, record: bool = True) -> Tensor:
        self._follow()
        if self.weight is not None:
            return self.weight.to(dtype)
        return packed_weight(self.packed, self.shape, self.theta(), dtype)

    def linear(self, x: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        self._follow()
        if x.ndim == 0 or x.shape[-1] != self.cols:
            raise ValueError(f"input of shape {tuple(x.shape)}: the layer takes [..., {self.cols}]")
        codes = self.codes
        if codes is None:
            if self._way(x, x.numel() // self.cols, dtype, has_kernel=True) != "on_the_fly":
                return super().linear(x, bias, dtype)
        elif unwatched(x, bias) and native.usable():
            # Codes are there where this is cheapest; one row is over in 0.15 ms, so the way to it is short.
            found = by_tables(x.to(dtype), codes, self.constant, bias, self.rows)
            if found is not None:
                return found
        return masked_mm(x.to(dtype), self.packed, self.theta(), bias=bias, codes=codes)

    def conv2d(
        self, x: Tensor, bias: Tensor | None, dtype: torch.dtype, stride: Ints, padding: Ints | str, dilation: Ints,
        groups: int,
    ) -> Tensor:  # fmt: skip
        self._follow()
        if x.ndim not in (3, 4) or x.shape[-3] != self.shape[1] * groups:
            channels = self.shape[1] * groups
            raise ValueError(f"input of shape {tuple(x.shape)}: the layer takes [N, {channels}, H, W]")
        positions = x.numel() // x.shape[-3] // math.prod(stride)  # of the output, about
        kernel = x.device.type != "cpu"  # on CPU masked_conv2d is the library's convolution over dense weights
        way = self._way(x, positions, dtype, has_kernel=kernel)
        if way != "on_the_fly" or isinstance(padding, str) or x.ndim != 4:
            return super().conv2d(x, bias, dtype, stride, padding, dilation, groups)
        return masked_conv2d(
            x.to(dtype),
            self.packed,
            self.theta(),
            self.shape[2:],
            bias=bias,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, making={self.making!r}"

    def _way(self, x: Tensor, rows: int, dtype: torch.dtype, *, has_kernel: bool) -> Making:
        if self.making != "auto":
            return self.making
        way = choose(
            device=x.device,
            rows=rows,
            edges=self.count,
            activations=x.numel() + rows * self.rows,
            itemsize=dtype.itemsize,
            fused=self._fused and has_kernel and dtype in BITS_DTYPE,
            kept=self.weight is not None,
            may_keep=not torch.compiler.is_compiling(),
        )
        if way == "cached" and self.weight is None:
            self._cache()
        return way
