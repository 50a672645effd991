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
| timm/NAME | any network of timm, where that is installed | those of timm |
| transformers/AutoModelFor...Classification | likewise of transformers | config: the content of a config.json |
| any other name | what `supermask.register` gave that name | those of its builder |

torchvision/googlenet and torchvision/inception_v3 are built with aux_logits=False and init_weights=False unless told
otherwise: with auxiliary outputs they return several tensors in training, which the training loop refuses, and of their
initialisation torchvision warns that it will change. By a name that a file gives nothing is evaluated, and nothing but
these three packages is imported, under their own names.
"""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from supermask.checks import cut
from supermask.networks import packages
from supermask.networks.registry import BUILDERS, Registered, registered

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
        entry = _entry(self.name)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            try:
                if entry is None:
                    return packages.build(self.name, self.arguments)
                return _module(entry.make(self.arguments))
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


def architectures() -> list[str]:
    """The registered names: this project's own (resnet18 is the network for 32x32 images), the user's, then
    torchvision's."""
    return [*BUILDERS, *(f"torchvision/{name}" for name in packages.torchvision_names())]


def input_shape(architecture: Architecture) -> tuple[int, ...] | None:
    """The shape of one input, without the batch; None where neither the arguments nor the family say it.

    Of other packages' networks it is the size that they take unless told otherwise, not that of some trained weights.
    """
    name, arguments = architecture.name, architecture.arguments
    if entry := registered(name):
        return entry.input_shape(arguments)
    return packages.input_shape(name, arguments) if packages.package_of(name) else None


def _entry(name: str) -> Registered | None:
    """Of the registry; None of a network of a package, which has it."""
    if entry := registered(name):
        return entry
    if packages.package_of(name):
        packages.check_known(name)
        return None
    short: dict[str, list[str]] = {}
    for full in architectures():
        short.setdefault(full.rpartition("/")[2], []).append(full)
    matches = difflib.get_close_matches(name.rpartition("/")[2].lower(), short)
    close = [full for match in matches for full in short[match]]
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise ValueError(
        f"no architecture is called {name!r}: {hint}One of your own is registered first, by supermask.register, on a "
        "command line by --import MODULE; supermask.networks.architecture.architectures() lists the others"
    )


def _module(made: object) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise TypeError(f"its builder gave {type(made).__name__}: expected a module")
    return made


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
    if value is None or isinstance(value, bool):
        return value
    for kind, plain in ((int, int), (float, float), (str, str.__str__)):  # str() of an enumeration's member: its name
        if isinstance(value, kind):  # one of NumPy's is, too
            return plain(value)
    if isinstance(value, list | tuple):
        return [_plain(f"{where}[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str.__str__(key): _plain(f"{where}.{key}", item) for key, item in value.items()}
    raise TypeError(
        f"{where} is {value!r} ({type(value).__name__}): arguments are stored as JSON, so give numbers, strings, "
        "booleans, None, lists, or mappings by string"
    )
