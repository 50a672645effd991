"""Architectures by registry name: what a ticket says its network is, in place of code.

    Architecture(name="torchvision/resnet50", arguments={"num_classes": 10}).build()

| name | network | arguments beside num_classes |
|---|---|---|
| mlp | linear layers, batch norm, ReLU | sizes (num_classes is the last of them), norm |
| conv2, conv4, conv6, conv8 | pairs of 3x3 convolutions, then linear layers | channels, size, widths, hidden, norm |
| vgg16_bn | VGG-16 with batch norm, for 32x32 images | channels, width |
| resnet18 | ResNet-18 for 32x32 images | channels, width |
| resnext29_32x4d | ResNeXt-29 for 32x32 images | channels, groups, width_per_group |
| convmixer | ConvMixer-256/8 for 32x32 images | channels, dim, depth, kernel_size, patch_size |
| torchvision/NAME | any of torchvision's classification networks, for its own image size | those of torchvision |

torchvision/googlenet and torchvision/inception_v3 are built with aux_logits=False and init_weights=False unless told
otherwise: with auxiliary outputs they return several tensors in training, which the training loop refuses, and of their
initialisation torchvision warns that it will change. Nothing is imported or evaluated by a name that a file gives.
"""

import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from supermask.checks import cut
from supermask.networks.small import MLP, convmixer, convnet, resnet18, resnext29, vgg16_bn

_TORCHVISION = "torchvision/"
_SHOWN = 500  # characters of what an error quotes
_MOST_TENSORS = 10_000  # torchvision's largest network has 1,331


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network's structure, without weights.

    Attributes:
        name: in the registry.
        arguments: of its builder, with values that JSON has: numbers, strings, booleans, None, lists, and mappings by
            string. Tuples become lists.

    Raises:
        TypeError, ValueError: an argument that JSON cannot hold.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name={self.name!r}: the name of an architecture is a string")
        object.__setattr__(self, "arguments", _plain("arguments", dict(self.arguments)))

    def build(self) -> nn.Module:
        """The network on CPU, initialised from torch's random state, which is left as it was.

        Raises:
            ValueError: an unknown name, or arguments its builder does not take.
        """
        builder = _builder(self.name)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            try:
                return builder(**self.arguments)
            except Exception as error:  # builders raise whatever a wrong argument runs into
                said = f"{type(error).__name__}: {error}"
                raise ValueError(f"{cut(str(self), _SHOWN)} cannot be built: {cut(said, _SHOWN)}") from error

    def skeleton(self) -> nn.Module:
        """The network with its weights on the meta device: names and shapes, no memory.

        Raises:
            ValueError: as `build`, and a network of more tensors than any real one has, which would take minutes to
                build: a ticket's arguments are anyone's.
        """
        with _WithoutMemory():
            return self.build()

    def to_json(self) -> dict[str, Any]:
        """{"name": ..., "arguments": {...}}, of JSON's own types."""
        return {"name": self.name, "arguments": dict(self.arguments)}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The inverse of `to_json`. The name is looked up when the network is built, not here.

        Raises:
            TypeError, ValueError: another structure.
        """
        if not isinstance(value, dict) or set(value) != {"name", "arguments"} or type(value["arguments"]) is not dict:
            raise ValueError(f'architecture {value!r}: expected {{"name": ..., "arguments": {{...}}}}')
        return cls(**value)

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={json.dumps(value)}" for name, value in self.arguments.items())
        return f"{self.name}({arguments})"


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    **{f"conv{depth}": partial(convnet, depth) for depth in (2, 4, 6, 8)},
    "vgg16_bn": vgg16_bn,
    "resnet18": resnet18,
    "resnext29_32x4d": resnext29,
    "convmixer": convmixer,
}
_DEFAULTS = {model: {"aux_logits": False, "init_weights": False} for model in ("googlenet", "inception_v3")}


def architectures() -> list[str]:
    """The registered names: this project's own (resnet18 is the network for 32x32 images), then torchvision's."""
    from torchvision import models

    return [*_BUILDERS, *(_TORCHVISION + name for name in models.list_models(module=models))]


def input_shape(architecture: Architecture) -> tuple[int, ...] | None:
    """The shape of one input, without the batch; None where neither the arguments nor the family say it.

    Of torchvision's networks it is the size that they take unless told otherwise, not that of some trained weights.
    """
    arguments, name = architecture.arguments, architecture.name
    if name == "mlp":
        sizes = arguments.get("sizes")
        return (sizes[0],) if sizes else None
    if name in _BUILDERS:  # for small images, of a size that only Conv2 to Conv8 can be told
        size = arguments.get("size", 32)
        return arguments.get("channels", 3), size, size
    model = name.removeprefix(_TORCHVISION)
    if model == name:
        return None
    size = arguments.get("image_size", 299 if model == "inception_v3" else 224)  # of vision transformers
    return 3, *arguments.get("input_size", (size, size))  # of MaxViT


def _builder(name: str) -> Callable[..., nn.Module]:
    if name in _BUILDERS:
        return _BUILDERS[name]
    known = architectures()
    if name in known:
        return partial(_torchvision, name.removeprefix(_TORCHVISION))
    short: dict[str, list[str]] = {}
    for full in known:
        short.setdefault(full.rpartition("/")[2], []).append(full)
    matches = difflib.get_close_matches(name.rpartition("/")[2].lower(), short)
    close = [full for match in matches for full in short[match]]
    hint = f"did you mean {' or '.join(map(repr, close))}" if close else "architectures() of this module lists them"
    raise ValueError(f"no architecture is called {name!r}: {hint}")


def _torchvision(model: str, /, **arguments: Any) -> nn.Module:
    """Random weights only: `weights`, and its older name `pretrained`, would download trained ones."""
    from torchvision import models

    for refused in ("weights", "pretrained"):
        if refused in arguments:
            raise ValueError(f"{refused}={arguments[refused]!r}: an architecture has no trained weights, leave it out")
    network: nn.Module = models.get_model(model, weights=None, **_DEFAULTS.get(model, {}) | arguments)
    return network


class _WithoutMemory(TorchFunctionMode):
    """Tensors that layers allocate are on the meta device; those a builder computes with (sizes, index tables) are not.

    Under `torch.device("meta")` in its place builders that read a number back from a tensor (RegNet) fail. Initial
    values are left out: there is nothing to write them to, and drawing into a meta tensor imports torch's compiler.
    """

    _allocate = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})
    _initialise = frozenset({torch.Tensor.normal_, torch.Tensor.uniform_})

    def __init__(self) -> None:
        super().__init__()
        self._left = _MOST_TENSORS

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self._initialise and args[0].is_meta:
            return args[0]
        if func not in self._allocate:
            return func(*args, **kwargs)
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"the arguments ask for more than {_MOST_TENSORS:,} tensors")
        return func(*args, **kwargs | {"device": "meta"})


def _plain(where: str, value: Any) -> Any:
    """`value` with lists for tuples and dicts for mappings, as a JSON round trip gives it."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}: JSON has finite numbers only")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(f"{where}[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(f"{where}.{key}", item) for key, item in value.items()}
    raise TypeError(
        f"{where} is {value!r} ({type(value).__name__}): arguments are stored as JSON, so give numbers, strings, "
        "booleans, None, lists, or mappings by string"
    )
