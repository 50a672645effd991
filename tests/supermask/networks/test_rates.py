"""Rates of a converted network: overrides, skipped layers, warnings of layers that keep too few edges."""

import copy
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import nn

from supermask.edges.in_model import searched_edges
from supermask.kernels.base.bits import popcount
from supermask.networks.convert import convert
from supermask.networks.rates import SparseLayerWarning, set_remaining
from supermask.networks.summary import summary
from tests.supermask.networks.dense_models import Everything, mlp, only, trained_parameters


def rates(model: nn.Module) -> dict[str, float]:
    return {name: edges.remaining for name, edges in searched_edges(model).items()}


def test_overrides() -> None:
    model = convert(mlp(), 0, remaining=0.5, overrides={"*": 0.25, "[24]": 0.75, "4": 1.0})
    assert rates(model) == {"0": 0.25, "2": 0.75, "4": 1.0}
    assert rates(convert(mlp(), 0, remaining=0.5, overrides={"4": 1.0, "[24]": 0.75, "*": 0.25}))["4"] == 0.25
    model = convert(mlp(), 0, remaining=0.5, overrides={"2": 0.25})
    assert rates(model) == {"0": 0.5, "2": 0.25, "4": 0.5}
    assert [edges.pinned for edges in searched_edges(model).values()] == [False, True, False]
    set_remaining(model, 0.1)
    assert rates(model) == {"0": 0.1, "2": 0.25, "4": 0.1}
    assert [edges.layer for edges in searched_edges(model).values()] == [0, 1, 2]


def test_first_and_last_are_places_where_no_layer_is_called_so() -> None:
    assert rates(convert(mlp(), 0, remaining=0.5, overrides={"first": 1.0})) == {"0": 1.0, "2": 0.5, "4": 0.5}
    assert rates(convert(mlp(), 0, remaining=0.5, overrides={"*": 0.25, "last": 1.0}))["4"] == 1.0
    assert list(searched_edges(convert(mlp(), 0, skip=["first", "last"]))) == ["2"]
    attended = rates(convert(Everything(), 0, remaining=0.5, overrides={"first": 0.25, "last": 0.75}))
    assert [list(attended.values())[place] for place in (0, -1)] == [0.25, 0.75]
    assert sorted(attended.values())[1:-1] == [0.5] * (len(attended) - 2)
    called = nn.Sequential(
        OrderedDict(a=nn.Linear(4, 4), first=nn.Linear(4, 4), last=nn.Linear(4, 4), b=nn.Linear(4, 4))
    )
    overrides = {"first": 0.25, "last": 0.75}
    assert rates(convert(called, 0, remaining=0.5, overrides=overrides)) == {"a": 0.5, **overrides, "b": 0.5}


def test_overrides_of_attention_and_nested_names() -> None:
    model = convert(Everything(), 0, remaining=0.5, overrides={"attention.*": 0.25, "head.2": 1, "up?d": 0.75})
    found = rates(model)
    assert {name for name, rate in found.items() if rate == 0.25} == {"attention.in_proj", "attention.out_proj"}
    assert {name for name, rate in found.items() if rate == 0.75} == {"up1d", "up2d", "up3d"}
    assert found["head.2"] == 1
    assert found["head.0"] == found["conv3d"] == found["conv1d"] == 0.5
    # Shell patterns, not substrings or prefixes, and case matters.
    for pattern in ("head", "ead.2", "HEAD.2", "attention", "conv"):
        with pytest.raises(ValueError, match=re.escape(f"['{pattern}']")):
            convert(Everything(), 0, overrides={pattern: 0.25})


def test_skip() -> None:
    model = mlp()
    kept = copy.deepcopy(model[2])
    convert(model, 0, skip=["2"])
    assert list(searched_edges(model)) == ["0", "4"]
    assert [edges.layer for edges in searched_edges(model).values()] == [0, 1]
    assert torch.equal(model[2].weight, kept.weight)
    assert torch.equal(model[2].bias, kept.bias)
    assert len(trained_parameters(model)) == 2
    assert [(left.name, left.trained, left.reason) for left in summary(model).left] == [
        ("2.weight", False, "skipped"),
        ("2.bias", False, "skipped"),
    ]
    assert list(searched_edges(convert(Everything(), 0, skip=["attention.*", "up*", "head.?"]))) == [
        "conv1d", "conv2d", "conv3d",
    ]  # fmt: skip
    assert list(searched_edges(convert(mlp(), 0, skip=["[02]"], overrides={"*": 1.0}))) == ["4"]
    with pytest.raises(ValueError, match=r"attention: in_proj and out_proj .* together"):
        convert(Everything(), 0, skip=["attention.out_proj"])


@pytest.mark.parametrize(
    ("layer", "remaining", "line"),
    [
        (nn.Linear(10, 100), 0.05, "net.0 keeps 50 of 1000 edges for 100 outputs"),
        (nn.Conv2d(10, 100, 3), 0.01, "net.0 keeps 90 of 9000 edges for 100 outputs"),
        (nn.ConvTranspose2d(2, 100, 3), 0.05, "net.0 keeps 90 of 1800 edges for 100 outputs"),
        (nn.ConvTranspose2d(10, 100, 3, groups=10), 0.1, "net.0 keeps 90 of 900 edges for 100 outputs"),
        (nn.Conv2d(100, 100, 3, groups=100), 0.1, "net.0 keeps 90 of 900 edges for 100 outputs"),
    ],
)
def test_a_layer_with_less_edges_than_outputs_is_warned_of(layer: nn.Module, remaining: float, line: str) -> None:
    model = nn.ModuleDict({"net": nn.Sequential(layer), "wide": nn.Linear(10000, 1)})
    with pytest.warns(SparseLayerWarning) as record:
        convert(model, 0, remaining=remaining)
    warning = only(list(record))
    assert str(warning.message).startswith(f"{line}: ")
    assert "overrides" in str(warning.message)
    assert warning.filename == __file__
    assert "wide" not in str(warning.message)


def test_sparse_layers_are_warned_of_together_and_at_each_rate() -> None:
    def warned(run: Callable[[], object]) -> list[str]:
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            run()
        assert all(warning.category is SparseLayerWarning for warning in record)
        assert all(warning.filename == __file__ for warning in record)
        return [str(warning.message) for warning in record]

    # Exactly as many edges as outputs are enough for the count: 40 of 800, 30 of 1200 and 10 of 300.
    model = mlp()
    assert warned(lambda: convert(model, 0, remaining=0.05)) == []
    assert warned(lambda: set_remaining(model, 0.05)) == []
    message = only(warned(lambda: set_remaining(model, 0.03)))
    assert message.startswith(
        "0 keeps 24 of 800 edges for 40 outputs; 4 keeps 9 of 300 edges for 10 outputs: outputs without an input"
    )
    assert warned(lambda: convert(mlp(), 0, remaining=0.03, overrides={"[04]": 1.0})) == []
    assert len(warned(lambda: convert(Everything(), 0, remaining=0.02))) == 1
    assert "attention.in_proj keeps 4 of 192 edges for 24 outputs" in only(
        warned(lambda: convert(Everything(), 0, remaining=0.02))
    )
    assert warned(lambda: convert(Everything(), 0, remaining=0.5)) == []


def test_set_remaining() -> None:
    model = convert(mlp(), 0)
    set_remaining(model, 0.3)
    assert [int(popcount(edges.mask()).sum()) for edges in searched_edges(model).values()] == [240, 360, 90]
    for bad in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"remaining={bad}"):
            set_remaining(model, bad)
    searched_edges(model)["2"].remove_unselected()
    set_remaining(model, 0.2)
    with pytest.raises(ValueError, match=r"remaining=0\.31 keeps 372 of 1200 edges.*left 360"):
        set_remaining(model, 0.31)
    with pytest.raises(ValueError, match="no searched layer"):
        set_remaining(mlp(), 0.5)
