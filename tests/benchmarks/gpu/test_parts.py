"""Every part from end to end, tiny: the CPU in place of a GPU, kernels interpreted."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu import checks, convolutions, facts, low_bit, parts, passes, products, selection, steps
from benchmarks.gpu.bench import Case
from benchmarks.gpu.small import Replays
from benchmarks.gpu.training import FORMS, Setting
from benchmarks.roofline import resnet50
from benchmarks.search_step import Network
from tests.benchmarks.gpu.wall import run

pytestmark = pytest.mark.usefixtures("triton_device")

SMALL = Network(name="conv2", size=4, classes=3, arguments={"size": 4, "widths": [4, 4], "hidden": 8, "norm": True})
REPLAYS = Replays(sizes=(4, 5, 3), steps=2, images=3)
LAYERS = ((4, 3, 3, 3), (10, 16))
TINY: dict[str, Callable[[], list[Case]]] = {
    "facts": partial(facts.cases, facts.FactSizes(product=64, products=1)),
    "checks": partial(
        checks.cases,
        checks.CheckSizes(
            inputs=2,
            shapes=((2, 33), (3, 5)),
            layers=((3, 130),),
            batches=(2,),
            channels=(2,),
            taps=((3, 2, 2),),
            size=4,
        ),
    ),
    "products": partial(products.cases, products.ProductSizes(widths=(128,), rows=(1, 2))),
    "convolutions": partial(
        convolutions.cases,
        convolutions.ConvolutionSizes(
            images=(2,),
            layers=(
                convolutions.Convolution(channels=4, rows=4, kernel=3, stride=2, size=4),
                convolutions.Convolution(channels=4, rows=8, kernel=1, stride=1, size=2),
            ),
        ),
    ),
    "selection": partial(selection.cases, selection.SelectionSizes(networks=(("small", LAYERS),), remaining=(0.5,))),
    "passes": partial(passes.cases, passes.PassSizes(rows=4, cols=130)),
    "steps": partial(
        steps.cases,
        steps.StepSizes(
            settings=(Setting(network=SMALL, batch=4, dtype=torch.float32),), forms=("eager",), replays=REPLAYS
        ),
    ),
}


def only(path: Path) -> dict[str, Any]:
    (found,) = json.loads(path.read_text())["runs"]
    assert isinstance(found, dict)
    return found


def test_these_are_the_parts() -> None:
    assert [*TINY, parts.ASKED_FOR] == list(parts.PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_part_measures_all_its_cases(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    failures = run(name, TINY[name], tmp_path / "gpu.json", said)
    told = "\n".join(said)
    assert failures == 0, told
    found = only(tmp_path / "gpu.json")
    assert found["part"] == name
    assert found["counts"] == {"measured": len(found["cases"]), "failed": 0, "not run": 0}
    assert found.keys() >= {"began", "command", "environment", "settings", "flags", "cases", "seconds"}
    assert [case["case"] for case in found["cases"]] == [case.name for case in TINY[name]()]
    assert {case["state"] for case in found["cases"]} == {"measured"}
    for case in found["cases"]:
        assert case["case"] in told
        for rival, row in case.get("rivals", {}).items():
            assert row["seconds"]["rounds"] == 2
            assert row["over floor"] == pytest.approx(row["seconds"]["median"] / row["floor"]["seconds"])
            assert rival in told


@pytest.mark.slow
def test_products_are_compared(tmp_path: Path) -> None:
    run("products", TINY["products"], tmp_path / "gpu.json", [])
    for case in only(tmp_path / "gpu.json")["cases"]:
        assert list(case["rivals"]) == ["masked_mm", products.DENSE, products.MADE, products.AUTO]
        assert {(one["ours"], one["theirs"]) for one in case["against"]} >= {("auto", products.MADE)}
        assert case["not here"] == ["gemlite, 2 bits: not installed", "torchao, 2 bits: not installed"]
        masked, dense = case["rivals"]["masked_mm"], case["rivals"][products.DENSE]
        assert masked["operations"] == dense["operations"] == 2 * case["rows"] * 128**2
        assert dense["bytes"] - masked["bytes"] == (2 - 1 / 8) * 128**2


@pytest.fixture
def compiled_eagerly(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str | None]]:
    """torch.compile without code for a device."""
    right, modes = torch.compile, list[str | None]()
    monkeypatch.setenv("SUPERMASK_KERNELS", "native")  # what a compiler sees is not interpreted anyway

    def compile_(model: Any, mode: str | None = None) -> Any:
        modes.append(mode)
        return right(model, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compile_)
    yield modes
    torch._dynamo.reset()


@pytest.mark.slow
def test_every_form_of_a_step(tmp_path: Path, compiled_eagerly: list[str | None]) -> None:
    settings = (Setting(network=SMALL, batch=4, dtype=torch.float32),)
    said: list[str] = []
    cases = partial(steps.cases, steps.StepSizes(settings=settings, replays=REPLAYS))
    assert run("steps", cases, tmp_path / "gpu.json", said) == 0, "\n".join(said)
    _, *found = only(tmp_path / "gpu.json")["cases"]
    assert [case["case"].split(":")[0] for case in found] == list(FORMS)
    assert compiled_eagerly == [None] * 4 + ["reduce-overhead"] * 2 + ["max-autotune"] * 2
    for case in found:
        for row in case["rivals"].values():
            assert row["images a second"] == pytest.approx(4 / row["seconds"]["median"])
            assert (row["graphs"] > 0) == (not case["case"].startswith(("eager", "captured")))


def test_the_convolutions_are_those_of_resnet50() -> None:
    of = {layer.name: layer for layer in resnet50(2)}
    del of["2048 to 1000, linear"]
    assert {one.name: one.layers for one in convolutions.RESNET50} == {name: one.count for name, one in of.items()}
    for one in convolutions.RESNET50:
        least, layer = one.least(2, 1), of[one.name]
        assert (one.edges, least.operations) == (layer.edges, layer.operations)
        assert least.bytes == layer.bytes(1 / 8)
    assert sum(torch.Size(shape).numel() for shape in selection.NETWORKS["ResNet-50"]) == 25_502_912


def test_products_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they are handed is the weight, to the bit."""
    packed: dict[str, Any] = {}

    class GemLite:
        def __init__(self, bits: int, group: int, cols: int, rows: int, **dtypes: Any) -> None:
            packed["place"] = bits, group, cols, rows, dtypes

        def pack(self, codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bias: None) -> None:
            groups = codes.reshape(len(scales), -1)
            packed["weight"] = ((groups - zeros) * scales).view(codes.shape)

    core = SimpleNamespace(TORCH_TO_DTYPE={torch.bfloat16: "BF16"}, GemLiteLinearTriton=GemLite)
    monkeypatch.setattr(low_bit, "find_spec", lambda name: name)
    monkeypatch.setitem(__import__("sys").modules, "gemlite", SimpleNamespace(core=core))
    monkeypatch.setitem(__import__("sys").modules, "gemlite.core", core)
    constant = 0.25
    weight = (torch.randint(3, (4, 256)) - 1).bfloat16() * constant
    low_bit.gemlite(weight, constant)
    assert torch.equal(packed["weight"], weight)
    assert packed["place"] == (2, 128, 256, 4, {"input_dtype": "BF16", "output_dtype": "BF16"})
