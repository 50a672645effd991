"""Conversion: which layers become masked, which do not and why, what is trained afterwards, and the words for it."""

import copy
import logging
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from supermask.edges.in_model import SparseLayerWarning, all_edges, searched_edges, set_remaining
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import popcount
from supermask.networks.attention import SupermaskMultiheadAttention
from supermask.networks.convert import convert, trained_parameters
from supermask.networks.layers import MaskedLayer, SupermaskConv2d, SupermaskLinear
from supermask.networks.summary import LeftTensor, summary

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SMALL = ["resnet18", "mobilenet_v3_small", "convnext_tiny"]
LARGE = ["resnet50", "wide_resnet50_2", "resnext50_32x4d", "vit_b_16"]


def expected_layers(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and weight shape of what has a masked form, attention layers as their two projections."""
    found: dict[str, tuple[int, ...]] = {}
    attentions: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            found[f"{name}.in_proj"] = tuple(module.in_proj_weight.shape)
            found[f"{name}.out_proj"] = tuple(module.out_proj.weight.shape)
            attentions.append(f"{name}.")
        elif isinstance(module, (nn.Linear, *CONVOLUTIONS)) and not name.startswith(tuple(attentions)):
            found[name] = tuple(module.weight.shape)
    return found


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


class Everything(nn.Module):
    """One of each kind that is converted, each kind of normalisation, and tensors that have no masked form."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))
        self.embedding = nn.Embedding(5, 8)
        self.conv1d = nn.Conv1d(8, 8, 3, padding=1)
        self.bn1d = nn.BatchNorm1d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.layer_norm = nn.LayerNorm(8)
        self.conv2d = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.group_norm = nn.GroupNorm(2, 4)
        self.up2d = nn.ConvTranspose2d(4, 6, 2, stride=2)
        self.instance_norm = nn.InstanceNorm2d(6, affine=True)
        self.conv3d = nn.Conv3d(1, 4, 3, padding=1)
        self.up3d = nn.ConvTranspose3d(4, 2, 1)
        self.bn3d = nn.BatchNorm3d(2)
        self.up1d = nn.ConvTranspose1d(12, 4, 1)
        self.rms_norm = nn.RMSNorm(320)
        self.head = nn.Sequential(nn.Linear(1280, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * self.scale
        x = self.bn1d(self.conv1d(x.transpose(1, 2))).transpose(1, 2)
        x = self.layer_norm(self.attention(x, x, x)[0])
        x = self.instance_norm(self.up2d(self.group_norm(self.conv2d(x[:, None]))))
        x = self.bn3d(self.up3d(self.conv3d(x[:, None])))
        x = self.rms_norm(self.up1d(x.flatten(1, 2).flatten(2)))
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


NORM_NAMES = ["bn1d", "layer_norm", "group_norm", "instance_norm", "bn3d", "rms_norm"]
MASKED_NAMES = [
    "conv1d", "attention.in_proj", "attention.out_proj", "conv2d", "up2d", "conv3d", "up3d", "up1d", "head.0", "head.2",
]  # fmt: skip


def tokens() -> Tensor:
    return torch.randint(5, (4, 10), generator=torch.Generator().manual_seed(0))


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


def rates(model: nn.Module) -> dict[str, float]:
    return {name: edges.remaining for name, edges in searched_edges(model).items()}


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10))


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


def only(record: list[Any]) -> Any:
    assert len(record) == 1
    return record[0]


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


class OwnLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 3


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
