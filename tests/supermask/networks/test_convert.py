"""Conversion: which layers become masked, and what is trained afterwards."""

import copy
import math
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from supermask.edges.in_model import all_edges, searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.networks.attention import SupermaskMultiheadAttention
from supermask.networks.convert import convert
from supermask.networks.layers import MaskedLayer, SupermaskConv2d, SupermaskLinear
from supermask.networks.summary import summary
from tests.supermask.networks.dense_models import (
    CONVOLUTIONS,
    MASKED_NAMES,
    NORM_NAMES,
    Everything,
    OwnLinear,
    expected_layers,
    mlp,
    tokens,
    trained_parameters,
)

SMALL = ["resnet18", "mobilenet_v3_small", "convnext_tiny"]

LARGE = ["resnet50", "wide_resnet50_2", "resnext50_32x4d", "vit_b_16"]


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
@pytest.mark.filterwarnings("ignore::supermask.SparseLayerWarning")
def test_torchvision_networks(name: str) -> None:
    model = getattr(torchvision.models, name)(num_classes=10)
    expected = expected_layers(model)
    dense_edges = sum(math.prod(shape) for shape in expected.values())
    assert convert(model, 7, remaining=0.3) is model

    found = searched_edges(model)
    assert {layer: edges.shape for layer, edges in found.items()} == expected
    assert list(found) == list(expected)
    assert [edges.layer for edges in found.values()] == list(range(len(expected)))
    assert {edges.seed for edges in found.values()} == {7}
    for edges in found.values():
        assert int(edges.kept) == max(1, round(0.3 * edges.count))
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained == [f"{layer}.edges.scores" for layer in expected]
    assert sum(p.numel() for p in trained_parameters(model)) == dense_edges
    assert not any(isinstance(m, (nn.Linear, *CONVOLUTIONS, nn.MultiheadAttention)) for m in model.modules())
    report = summary(model)
    assert report.edges == dense_edges
    assert report.kept == sum(max(1, round(0.3 * math.prod(shape))) for shape in expected.values())

    if name in SMALL:
        size = 64 if name == "mobilenet_v3_small" else 32
        model(torch.randn(2, 3, size, size)).square().sum().backward()
        for layer, edges in found.items():
            assert edges.scores.grad is not None, layer
            assert torch.isfinite(edges.scores.grad).all(), layer
            assert (edges.scores.grad != 0).any(), layer
        assert [n for n, p in model.named_parameters() if p.grad is not None] == trained


def test_every_kind_is_converted_in_order() -> None:
    model = Everything()
    shapes = expected_layers(model)
    converted = convert(model, 0)
    assert list(searched_edges(converted)) == list(shapes) == MASKED_NAMES
    assert {name: edges.shape for name, edges in searched_edges(converted).items()} == shapes
    assert [edges.layer for edges in searched_edges(converted).values()] == list(range(10))
    assert isinstance(converted.attention, SupermaskMultiheadAttention)
    converted(tokens()).square().sum().backward()
    for name, parameter in converted.named_parameters():
        assert parameter.requires_grad == name.endswith(".edges.scores"), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or bool((parameter.grad != 0).any()), name


def test_an_attention_layer_is_two_layers_whatever_its_output_projection_is() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "head": nn.Linear(8, 8)})
    model["attention"].out_proj = nn.Linear(8, 8)
    found = searched_edges(convert(model, 0))
    assert list(found) == ["attention.in_proj", "attention.out_proj", "head"]
    assert [edges.layer for edges in found.values()] == [0, 1, 2]


def test_conversion_computes_what_the_dense_network_does_with_the_same_weights() -> None:
    model = Everything()
    dense = copy.deepcopy(model)
    converted = convert(model, 0, bias="freeze", norm="freeze")
    with torch.no_grad():
        for name, edges in searched_edges(converted).items():
            if name == "attention.in_proj":
                dense.attention.in_proj_weight.copy_(edges(torch.float32))
            else:
                dense.get_submodule(name).weight.copy_(edges(torch.float32))
    assert torch.equal(converted(tokens()), dense(tokens()))


@pytest.mark.parametrize("norm", ["non_affine", "freeze", "train"])
def test_norm_policies(norm: Any) -> None:
    model = Everything()
    with torch.no_grad():
        for name in NORM_NAMES:
            for parameter in model.get_submodule(name).parameters():
                parameter.normal_()
    before = {name: dict(copy.deepcopy(model.get_submodule(name)).named_parameters()) for name in NORM_NAMES}
    converted = convert(model, 0, norm=norm)
    for name, parameters in before.items():
        module = converted.get_submodule(name)
        now = dict(module.named_parameters())
        if norm == "non_affine":
            assert not now
            assert module.weight is None
            assert getattr(module, "affine", getattr(module, "elementwise_affine", None)) is False
        else:
            assert now.keys() == parameters.keys()
            for key, parameter in now.items():
                assert torch.equal(parameter, parameters[key])
                assert parameter.requires_grad == (norm == "train")
    converted(tokens()).sum().backward()
    trained = len(trained_parameters(converted))
    assert trained == 10 + (sum(map(len, before.values())) if norm == "train" else 0)
    if norm == "non_affine":
        assert "affine=False" in repr(converted.bn1d)


@pytest.mark.parametrize("bias", ["drop", "freeze", "train"])
def test_bias_policies(bias: Any) -> None:
    model = Everything()
    with torch.no_grad():
        model.attention.in_proj_bias.normal_()  # type: ignore[union-attr]
    before: dict[str, Any] = {
        name: model.attention.in_proj_bias if name == "attention.in_proj" else model.get_submodule(name).bias
        for name in MASKED_NAMES
    }
    values = {name: None if b is None else b.detach().clone() for name, b in before.items()}
    converted = convert(model, 0, bias=bias)
    assert [name for name, b in before.items() if b is None] == ["conv2d"]
    for name, value in values.items():
        layer: Any = converted.get_submodule(name)
        if bias == "drop" or value is None:
            assert layer.bias is None
        else:
            assert torch.equal(layer.bias, value)
            assert isinstance(layer.bias, nn.Parameter) == (bias == "train")
            assert layer.bias.requires_grad == (bias == "train")
            assert f"{name}.bias" in converted.state_dict()
            assert bias == "train" or layer.bias is not before[name]
    assert len(trained_parameters(converted)) == 10 + 9 * (bias == "train")
    converted(tokens()).square().sum().backward()
    assert all(p.grad is not None for p in trained_parameters(converted))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": {"fc": 1.0}}, r"no masked layer matches \['fc'\]: the layers are 0, 2, 4"),
        ({"overrides": {"4": 1.0, "x*": 0.5}, "skip": ["y"]}, r"\['x\*', 'y'\]"),
        ({"overrides": {"1": 0.5}}, r"\['1'\]"),
        ({"skip": ["5"]}, r"\['5'\]"),
        ({"overrides": {"4": 0.0}}, "remaining=0.0"),
        ({"overrides": {"4": 1.2}}, r"remaining=1\.2"),
        ({"remaining": 0}, "remaining=0"),
        ({"remaining": float("nan")}, "remaining=nan"),
        ({"seed": 2**64}, "64 bits"),
        ({"bias": "keep"}, "bias='keep'.*'drop', 'freeze', 'train'"),
        ({"norm": "affine"}, "norm='affine'.*'non_affine', 'freeze', 'train'"),
        ({"weights": "normal"}, "weights='normal'"),
        ({"scores": "normal"}, "scores='normal'"),
        ({"magnitude": "signed"}, "magnitude='signed'"),
    ],
)
def test_bad_arguments_leave_the_model_alone(options: dict[str, Any], message: str) -> None:
    model = mlp()
    modules = dict(model.named_modules())
    with pytest.raises(ValueError, match=message):
        convert(model, **{"seed": 0, **options})
    assert dict(model.named_modules()) == modules
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_converting_twice_is_refused_and_harmless() -> None:
    model = convert(mlp(), 0)
    with pytest.raises(ValueError, match="Sequential already has masked layers: 0, 2, 4"):
        convert(model, 0)
    assert len(trained_parameters(model)) == 3
    grown = nn.Sequential(nn.Linear(10, 20), model)
    with pytest.raises(ValueError, match=r"already has masked layers: 1\.0, 1\.2, 1\.4"):
        convert(grown, 1)
    assert len(trained_parameters(model)) == 3
    assert type(grown[0]) is nn.Linear


def test_a_module_at_two_places_is_one_layer_at_both() -> None:
    shared, attention = nn.Linear(6, 6), nn.MultiheadAttention(6, 2)
    inner = nn.Sequential(nn.Linear(6, 6), shared)
    model = nn.ModuleDict({"a": shared, "b": inner, "c": attention, "d": nn.ModuleList([attention, shared])})
    convert(model, 0)
    assert isinstance(model["a"], SupermaskLinear)
    assert model["a"] is model["b"][1] is model["d"][1]
    assert model["c"] is model["d"][0]
    assert list(searched_edges(model)) == ["a", "b.0", "c.in_proj", "c.out_proj"]
    assert [edges.layer for edges in searched_edges(model).values()] == [0, 1, 2, 3]
    assert len(trained_parameters(model)) == 4
    block = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    twice = convert(nn.Sequential(block, nn.Linear(6, 6), block), 0)
    assert isinstance(twice[0][0], SupermaskLinear)
    assert twice[0] is twice[2]
    assert list(searched_edges(twice)) == ["0.0", "1"]


@pytest.mark.parametrize(
    ("dense", "masked"), [(nn.Linear(6, 5), SupermaskLinear), (nn.Conv2d(3, 5, 3, stride=2), SupermaskConv2d)]
)
def test_a_root_that_is_itself_a_layer(dense: nn.Module, masked: type[nn.Module]) -> None:
    found = convert(dense, 0, remaining=0.4)
    assert type(found) is masked
    assert list(searched_edges(found)) == [""]
    assert found.edges.remaining == pytest.approx(0.4, abs=0.01)
    assert summary(found).layers[0].name == ""
    root = convert(nn.MultiheadAttention(6, 2), 0)
    assert type(root) is SupermaskMultiheadAttention
    assert list(searched_edges(root)) == ["in_proj", "out_proj"]
    x = torch.randn(4, 2, 6)
    assert root(x, x, x)[0].shape == (4, 2, 6)


def test_nothing_to_convert() -> None:
    for model in (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), nn.ReLU(), nn.Sequential(OwnLinear(3, 3))):
        with pytest.raises(ValueError, match=rf"{type(model).__name__} has no layer to convert.*Linear.*Multihead"):
            convert(model, 0)
        assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="no searched layer"):
        summary(nn.ReLU())


def test_a_conversion_is_a_function_of_the_seed() -> None:
    def state(torch_seed: int, **options: Any) -> dict[str, Tensor]:
        torch.manual_seed(torch_seed)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10))
        before = torch.get_rng_state()
        convert(model, **{"seed": 3, "remaining": 0.3, **options})
        assert torch.equal(torch.get_rng_state(), before)
        weights = {name: edges(torch.float32).detach() for name, edges in searched_edges(model).items()}
        return {**model.state_dict(), **weights}

    first = state(0)
    for weights in ("signed_constant", "kaiming_normal"):
        one, other = state(0, weights=weights), state(1, weights=weights)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    for key in ("0", "3", "0.edges.scores", "3.edges.scores"):
        assert not torch.equal(first[key], state(0, seed=4)[key])


def test_options_reach_every_layer() -> None:
    model = convert(Everything(), 5, weights="kaiming_uniform", scores="kaiming_normal", magnitude="raw")
    for layer, edges in enumerate(searched_edges(model).values()):
        fresh = SearchedEdges(
            edges.shape, seed=5, layer=layer, weights="kaiming_uniform", scores="kaiming_normal", magnitude="raw"
        )
        assert torch.equal(edges.scores, fresh.scores)
        assert torch.equal(edges(torch.float32), fresh(torch.float32))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept(training: bool) -> None:
    model = convert(Everything().train(training), 0)
    assert {module.training for module in model.modules()} == {training}


def test_arguments_of_layers_survive() -> None:
    dense = nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), (1, 2), (2, 1), dilation=2, groups=2, padding_mode="circular", bias=False),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False),
    )
    model = convert(copy.deepcopy(dense), 0)
    with torch.no_grad():
        for old, new in zip(dense, model, strict=True):
            old.weight.copy_(new.weight)
    x = torch.randn(2, 4, 9, 8)
    assert torch.equal(model(x), dense(x))
    assert all(isinstance(layer, MaskedLayer) for layer in model)
    assert list(all_edges(model)) == ["0", "1"]
