"""Networks of timm and transformers by their names: tickets name them, and what brings weights or code is refused."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from supermask import Architecture, Digits32, Network, Recipe, RunOptions, Training, convert, exports, load, save
from supermask.checks import cut
from supermask.methods.edge_popup import EP
from supermask.runs.identity import begun_in
from tests.families.cases import SIGNALS, TEXT, TIMM, WORDS


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An architecture that is not built, and what is said of it."""

    architecture: Architecture
    says: str


@dataclass(frozen=True, kw_only=True)
class Named:
    """An architecture that comes back from a ticket by its name.

    Attributes:
        inputs: a batch.
        shape: of one input, as the architecture says it.
    """

    architecture: Architecture
    inputs: torch.Tensor
    shape: tuple[int, ...] | None = None


def named(package: str) -> Iterator[Named]:
    """The families of timm; of transformers those that classify."""
    if package == "timm":
        for name, side in TIMM.items():
            inputs = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
            yield Named(architecture=Architecture(name=f"timm/{name}", arguments={"num_classes": 5}), inputs=inputs)
        sized = Architecture(name="timm/vit_tiny_patch16_224", arguments={"img_size": 32, "in_chans": 1, "depth": 2})
        yield Named(architecture=sized, inputs=torch.randn(2, 1, 32, 32), shape=(1, 32, 32))
    if package == "transformers":
        for kind, (_, given) in TEXT.items():
            if kind in ("bert", "gpt2", "distilbert", "albert"):
                config = {"model_type": kind, **WORDS, **given, "pad_token_id": 0, "id2label": {"0": "a", "1": "b"}}
                words = torch.randint(4, 100, (2, 12), generator=torch.Generator().manual_seed(0))
                yield Named(architecture=auto("SequenceClassification", config), inputs=words)
        for kind, (_, given, batch) in SIGNALS.items():
            task = "ImageClassification" if len(batch) == 4 else "AudioClassification"
            inputs = torch.randn(batch, generator=torch.Generator().manual_seed(0))
            architecture = auto(task, {"model_type": kind, **given, "torch_dtype": "bfloat16"})
            yield Named(architecture=architecture, inputs=inputs, shape=(3, 32, 32) if kind == "vit" else None)


def auto(task: str, config: dict[str, Any], **arguments: Any) -> Architecture:
    """A network of transformers for five classes."""
    given = {"config": config, "num_classes": 5, **arguments}
    return Architecture(name=f"transformers/AutoModelFor{task}", arguments=given)


def comes_back(case: Named) -> str:
    """What is wrong with a network that was found by its name, masked, saved and loaded by the name alone."""
    torch.manual_seed(0)
    try:
        architecture = case.architecture
        dense, skeleton = architecture.build(), architecture.skeleton()
        states = [{name: tensor.shape for name, tensor in made.state_dict().items()} for made in (dense, skeleton)]
        if states[0] != states[1]:
            return "its skeleton has other tensors"
        if wrong := {str(p.dtype) for p in dense.parameters()} - {"torch.float32"}:
            return f"its parameters are {wrong}"
        model = convert(dense, seed=1, remaining=0.5).eval()
        file = io.BytesIO()
        save(model, file, architecture=architecture, encoding="raw")
        file.seek(0)
        again = load(file, weights="cached")
        with torch.no_grad():
            logits = model(case.inputs)
            same = torch.equal(logits, again(case.inputs))
        if case.shape is not None and exports.input_shape(architecture) != case.shape:
            return f"its input has the shape {exports.input_shape(architecture)}"
    except Exception as error:  # whatever it runs into is what is to be said
        return f"{type(error).__name__}: {error}"
    classes = architecture.arguments.get("num_classes", 1000)
    return "" if same and logits.shape == (len(case.inputs), classes) else "other logits than the searched network's"


VIT = {"model_type": "vit", **SIGNALS["vit"][1]}
REFUSED: dict[str, list[Refused]] = {
    "timm": [
        *(
            Refused(architecture=Architecture(name="timm/resnet10t", arguments={name: value}), says=f"{name}=")
            for name, value in {
                "pretrained": True, "pretrained_cfg": {"file": "x"}, "pretrained_cfg_overlay": {"file": "x"},
                "checkpoint_path": "x", "checkpoint": "x", "cache_dir": "x",
            }.items()
        ),
        *(
            Refused(architecture=Architecture(name=f"timm/{name}"), says=f"no architecture is called 'timm/{name}'")
            for name in ("hf-hub:timm/resnet10t", "hf_hub:x", "local-dir:x", "timm/resnet10t", "x/resnet10t")
        ),
        Refused(architecture=Architecture(name="timm/resnet1Ot"), says="'timm/resnet10t'"),
        Refused(architecture=Architecture(name="timm/resnet10t", arguments={"widht": 3}), says="widht"),
    ],
    "transformers": [
        Refused(architecture=Architecture(name="transformers/AutoModel"), says="no architecture is called"),
        Refused(architecture=Architecture(name="transformers/ViTModel"), says="no architecture is called"),
        Refused(architecture=Architecture(name="transformers/pipeline"), says="no architecture is called"),
        Refused(architecture=auto("ImageClassification", {}), says="with model_type"),
        Refused(architecture=auto("ImageClassification", VIT, labels=3), says="'labels'"),
        *(
            Refused(architecture=auto("ImageClassification", {**VIT, **more}), says=says)
            for more, says in (
                ({"auto_map": {"AutoModelForImageClassification": "x--y.Z"}}, "auto_map="),
                ({"attn_implementation": "kernels-community/flash-attn"}, "attn_implementation="),
                ({"_attn_implementation": "kernels-community/flash-attn"}, "attn_implementation="),
                ({"inner": [{"use_pretrained_backbone": True}]}, "use_pretrained_backbone="),
                ({"inner": {"backbone": "microsoft/resnet-18"}}, "backbone="),
                ({"inner": {"model_type": "timm_backbone"}}, "timm/NAME"),
                ({"model_type": "timm_wrapper", "architecture": "hf-hub:x"}, "timm/NAME"),
                ({"model_type": "no_such_model"}, "no_such_model"),
                ({"model_type": "bert"}, "cannot be built"),
            )
        ),
    ],
}  # fmt: skip


def wrongly_refused(case: Refused) -> str:
    """What is wrong with how an architecture is refused."""
    for make in (case.architecture.build, case.architecture.skeleton):
        try:
            make()
        except ValueError as error:
            if case.says not in str(error):
                return f"it says {error}"
        except Exception as error:  # none other is one
            return f"{type(error).__name__}: {error}"
        else:
            return "it is built"
    return ""


def recorded(package: str) -> str:
    """What is wrong with the environment of a run of one of its networks."""
    with TemporaryDirectory() as folder:
        network = Network(name="timm/test_resnet")
        if package == "transformers":
            file = Path(folder) / "vit.json"
            file.write_text(json.dumps(VIT))
            network = Network(name="transformers/AutoModelForImageClassification", config=file)
        run = RunOptions(folder=Path(folder) / "run", device="cpu", quiet=True)
        data = Digits32(batch=8, images_per_epoch=16)
        recipe = Recipe(
            name="small", data=data, network=network, training=Training(epochs=1), method=EP(remaining=0.5), run=run
        )
        recipe.execute()
        said = begun_in(Path(folder) / "run") or {}
        return "" if said.get(package) == version(package) else f"its environment is {said}"


def faults(package: str) -> list[str]:
    """In words, of networks of a package by their names."""
    found = [(str(case.architecture), comes_back(case)) for case in named(package)]
    found += [(str(case.architecture), wrongly_refused(case)) for case in REFUSED.get(package, ())]
    if package in REFUSED:
        found.append((f"a run with {package}", recorded(package)))
    return [f"{cut(name, 200)}: {fault}" for name, fault in found if fault]
