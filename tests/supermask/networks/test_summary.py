"""What a conversion leaves and why, and the words for it."""

import copy
import logging

import pytest
import torch
from torch import Tensor, nn

from supermask.edges.in_model import searched_edges
from supermask.networks.convert import convert
from supermask.networks.rates import set_remaining
from supermask.networks.summary import LeftTensor, summary
from tests.supermask.networks.dense_models import OwnLinear, mlp, only


def reasons(model: nn.Module) -> dict[str, str]:
    return {left.name: left.reason for left in summary(model).left}


def test_tied_weights_are_left() -> None:
    embedding, head = nn.Embedding(5, 8), nn.Linear(8, 5, bias=False)
    weight = head.weight = embedding.weight
    model = nn.ModuleDict({"embedding": embedding, "body": nn.Linear(8, 8), "head": head})
    convert(model, 0, bias="train", norm="train")
    assert list(searched_edges(model)) == ["body"]
    assert model["head"].weight is model["embedding"].weight is weight
    assert not weight.requires_grad
    assert reasons(model) == {
        "embedding.weight": "its weight is shared with head",
        "head.weight": "its weight is shared with embedding",
        "body.bias": "bias of a masked layer",
    }
    pair = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    pair[2].weight = pair[0].weight
    assert list(searched_edges(convert(pair, 0))) == ["1"]


def test_kinds_without_a_masked_form_are_left_with_the_reason() -> None:
    model = nn.ModuleDict(
        {
            "own": OwnLinear(4, 4),
            "cross": nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
            "biased": nn.MultiheadAttention(4, 2, add_bias_kv=True),
            "lstm": nn.LSTM(4, 4),
            "bilinear": nn.Bilinear(2, 3, 4, bias=False),
            "normed": nn.utils.parametrizations.weight_norm(nn.Linear(4, 4, bias=False)),
            "bn": nn.BatchNorm1d(4),
            "masked": nn.Linear(4, 4),
        }
    )
    own = copy.deepcopy(model["own"])
    convert(model, 0, bias="train", norm="freeze")
    assert list(searched_edges(model)) == ["masked"]
    found = reasons(model)
    assert found["own.weight"] == "OwnLinear is a subclass, whose own forward a masked layer would not run"
    assert torch.equal(model["own"](torch.ones(4)), own(torch.ones(4)))
    assert found["cross.q_proj_weight"] == "MultiheadAttention has no masked form"
    assert found["biased.in_proj_weight"] == "MultiheadAttention has no masked form"
    assert found["lstm.weight_ih_l0"] == "LSTM has no masked form"
    assert found["cross.out_proj.weight"] == "MultiheadAttention has no masked form"
    assert found["bilinear.weight"] == "Bilinear has no masked form"
    assert found["bn.weight"] == found["bn.bias"] == "scale or shift of a normalisation"
    assert found["masked.bias"] == "bias of a masked layer"
    left = {name for name, _ in model.named_parameters()} - {"masked.edges.scores"}
    assert set(found) == left
    assert [item.name for item in summary(model).left if item.trained] == ["masked.bias"]
    for name in ("cross", "biased"):
        assert type(model[name]) is nn.MultiheadAttention
        assert type(model[name].out_proj) is nn.modules.linear.NonDynamicallyQuantizableLinear
    assert type(model["normed"](torch.ones(4))) is Tensor


def test_summary_text() -> None:
    model = nn.ModuleDict(
        {"conv": nn.Conv2d(3, 8, 3), "bn": nn.BatchNorm2d(8), "fc": nn.Linear(1250, 4), "own": OwnLinear(2, 2, False)}
    )
    convert(model, 0, remaining=0.2, overrides={"fc": 1.0}, bias="train", norm="freeze")
    report = summary(model)
    assert str(report).splitlines() == [
        "searched: 2 layers, 5,043 of 5,216 edges kept",
        "  conv  SupermaskConv2d (8, 3, 3, 3)  43 of 216  19.91%",
        "  fc    SupermaskLinear (4, 1250)  5,000 of 5,000 100.00% pinned",
        "left: 5 parameters:",
        "  conv.bias (8,) trained: bias of a masked layer",
        "  bn.weight (8,) frozen: scale or shift of a normalisation",
        "  bn.bias (8,) frozen: scale or shift of a normalisation",
        "  fc.bias (4,) trained: bias of a masked layer",
        "  own.weight (2, 2) frozen: OwnLinear is a subclass, whose own forward a masked layer would not run",
    ]
    assert (report.edges, report.kept) == (5216, 5043)
    assert report.layers[1].pinned
    assert report.left[-1] == LeftTensor(
        name="own.weight", shape=(2, 2), trained=False,
        reason="OwnLinear is a subclass, whose own forward a masked layer would not run",
    )  # fmt: skip
    set_remaining(model, 0.5)
    assert summary(model).kept == 5108
    bare = str(summary(convert(nn.Sequential(nn.Linear(3, 2, bias=False)), 0)))
    assert bare.splitlines()[-1] == "left: 0 parameters"


def test_the_summary_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="supermask"):
        model = convert(mlp(), 0)
    assert only(caplog.records).getMessage() == str(summary(model))
