"""Networks of torchvision, timm and transformers by their names there, with random weights: nothing is downloaded, no
file is read, and no code but these packages' own is run.

transformers' networks are made from a configuration (`config`, the content of a config.json), and give their logits
alone. The dtype in it is that of some trained weights, so float32 is taken in its place.
"""

import difflib
import importlib
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from supermask.checks import cut
from supermask.networks.registry import PACKAGES

_DEFAULTS = {model: {"aux_logits": False, "init_weights": False} for model in ("googlenet", "inception_v3")}
_AUTO = re.compile(r"AutoModelFor\w*Classification")
_OF_WEIGHTS = ("dtype", "torch_dtype", "architectures", "_name_or_path", "transformers_version")
_LABELS = ("num_labels", "id2label", "label2id", "_num_labels")
# Of a configuration, at any depth: code from elsewhere, weights from elsewhere, files, and kernels of the hub.
_FETCHED = ("auto_map", "custom_pipelines", "backbone", "use_pretrained_backbone", "quantization_config")
_OF_TIMM = ("timm_wrapper", "timm_backbone")
_ATTENTION = ("eager", "sdpa", None)


def package_of(name: str) -> str | None:
    """The package of an architecture called PACKAGE/NAME; None of a registered one."""
    package, slash, _ = name.partition("/")
    return package if slash and package in PACKAGES else None


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network called PACKAGE/NAME.

    Raises:
        ValueError: arguments that would load weights, or run code; torchvision and timm raise what they like besides.
    """
    package, _, model = name.partition("/")
    made: nn.Module = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[package](
        model, **arguments
    )
    return made


def check_known(name: str) -> None:
    """Raise ValueError where the package of PACKAGE/NAME is not installed, or has no such network."""
    package, _, model = name.partition("/")
    if find_spec(package) is None:
        raise ValueError(f"the architecture {name!r} is of {package}, which is not installed: pip install {package}")
    known = {"torchvision": torchvision_names, "timm": _timm_names, "transformers": _transformers_names}[package]()
    # A name of timm may have the tag of some trained weights, which say what its sizes are.
    if model.partition(".")[0] in known if package == "timm" else model in known:
        return
    close = difflib.get_close_matches(model if package == "transformers" else model.lower(), known)
    hint = f"did you mean {' or '.join(repr(f'{package}/{one}') for one in close)}" if close else _WHERE[package]
    raise ValueError(f"no architecture is called {name!r}: {hint}")


_WHERE = {
    "torchvision": "supermask.networks.architecture.architectures() lists torchvision's",
    "timm": "timm.list_models() lists timm's; those of a hub or a folder would bring weights or code",
    "transformers": "expected transformers/AutoModelFor...Classification, and its configuration as an argument",
}


def torchvision_names() -> list[str]:
    """Its networks for classification."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def _timm_names() -> list[str]:
    names: list[str] = importlib.import_module("timm").list_models()
    return names


def _transformers_names() -> list[str]:
    return [name for name in dir(importlib.import_module("transformers")) if _AUTO.fullmatch(name)]


def _torchvision(model: str, /, **arguments: Any) -> nn.Module:
    """Random weights only: `weights`, and its older name `pretrained`, would download trained ones."""
    from torchvision import models

    _refuse([name for name in arguments if name in ("weights", "pretrained")], arguments)
    network: nn.Module = models.get_model(model, weights=None, **_DEFAULTS.get(model, {}) | arguments)
    return network


def _timm(model: str, /, **arguments: Any) -> nn.Module:
    of_weights = [name for name in arguments if name.startswith(("pretrained", "checkpoint")) or name == "cache_dir"]
    _refuse(of_weights, arguments)
    network: nn.Module = importlib.import_module("timm").create_model(model, pretrained=False, **arguments)
    return network


def _transformers(model: str, /, *, config: Any = None, num_classes: int | None = None, **unknown: Any) -> nn.Module:
    if unknown:
        raise TypeError(f"no argument is called {next(iter(unknown))!r}: it takes config and num_classes")
    if not isinstance(config, Mapping) or not isinstance(config.get("model_type"), str):
        raise ValueError(
            f"config={cut(repr(config), 100)}: expected the content of a config.json of transformers, with model_type"
        )
    for name, value in _settings_in(config):
        _check_setting(name, value)
    transformers = importlib.import_module("transformers")
    given = {name: value for name, value in config.items() if name not in ("model_type", *_OF_WEIGHTS)}
    if num_classes is not None:
        given = {name: value for name, value in given.items() if name not in _LABELS} | {"num_labels": num_classes}
    made = transformers.AutoConfig.for_model(config["model_type"], **given)
    return Logits(getattr(transformers, model).from_config(made))


def _refuse(names: list[str], arguments: Mapping[str, Any]) -> None:
    if names:
        given = f"{names[0]}={arguments[names[0]]!r}"
        raise ValueError(f"{given}: an architecture has no trained weights, leave it out")


def _settings_in(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        yield name, value
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Mapping):
                yield from _settings_in(inner)


def _check_setting(name: str, value: Any) -> None:
    said = f"config has {name}={cut(repr(value), 100)}"
    if name in _FETCHED and value:
        raise ValueError(f"{said}: an architecture has neither trained weights nor code from elsewhere, leave it out")
    if name == "model_type" and value in _OF_TIMM:
        raise ValueError(f"{said}: a network of timm is called timm/NAME")
    if name.strip("_").startswith("attn_implementation") and value not in _ATTENTION:
        raise ValueError(f"{said}: expected eager or sdpa, which transformers has itself")


class Logits(nn.Module):
    """A network of transformers that gives its logits, in place of a record that has them.

    Attributes:
        model: the network, whose first input is taken.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x, return_dict=True).logits
        return logits


def input_shape(name: str, arguments: Mapping[str, Any]) -> tuple[int, ...] | None:
    """What `build` makes takes, unless told otherwise: not what some trained weights were trained on."""
    package, _, model = name.partition("/")
    if package == "timm":
        return _timm_shape(model, arguments)
    if package == "transformers":
        config = arguments.get("config", {})
        size = config.get("image_size")
        return None if size is None else (config.get("num_channels", 3), *_pair(size))
    size = arguments.get("image_size", 299 if model == "inception_v3" else 224)  # of vision transformers
    return 3, *arguments.get("input_size", (size, size))  # of MaxViT


def _timm_shape(model: str, arguments: Mapping[str, Any]) -> tuple[int, ...] | None:
    if find_spec("timm") is None:
        return None
    said = importlib.import_module("timm").models.get_pretrained_cfg(model)
    if said is None or said.input_size is None:
        return None
    channels, *sides = said.input_size
    return arguments.get("in_chans", channels), *_pair(arguments.get("img_size", sides))


def _pair(size: Any) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)
