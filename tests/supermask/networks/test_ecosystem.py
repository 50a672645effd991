"""What networks of other hands do besides having layers: reparametrisations, wrappers, norms of their own, tensors that
are read from outside of their layer."""

import warnings
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrizations, prune

from supermask.checks import SearchWarning
from supermask.edges.in_model import searched_edges
from supermask.networks.convert import convert
from supermask.networks.layers import SupermaskLinear
from supermask.networks.rates import set_remaining
from supermask.networks.summary import summary
from supermask.tickets.save import save
from tests.supermask.networks.dense_models import mlp


def reasons(model: nn.Module) -> dict[str, str]:
    return {left.name: left.reason for left in summary(model).left}


REPARAMETRISED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "pruned bias": lambda layer: prune.random_unstructured(layer, "bias", 0.5),
    "parametrised": parametrizations.weight_norm,
}


@pytest.mark.parametrize("label", list(REPARAMETRISED))
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::supermask.SearchWarning")
def test_reparametrised_layers_are_left(label: str) -> None:
    layer = REPARAMETRISED[label](nn.Linear(6, 6))
    model = convert(nn.Sequential(layer, nn.Linear(6, 6)), seed=1)
    assert list(searched_edges(model)) == ["1"]
    assert model[0] is layer
    said = {reason for name, reason in reasons(model).items() if name.startswith("0.")}
    if label == "parametrised":
        assert "ParametrizedLinear is a subclass, whose own forward a masked layer would not run" in said
    else:
        (one,) = said
        assert one.endswith("is made anew by a reparametrisation, such as weight_norm, spectral_norm or prune")


def test_an_attention_layer_with_a_reparametrised_projection_is_left() -> None:
    attention = nn.MultiheadAttention(4, 2)
    prune.random_unstructured(attention.out_proj, "weight", 0.5)
    model = convert(nn.ModuleDict({"attention": attention, "fc": nn.Linear(40, 40)}), seed=1)
    assert list(searched_edges(model)) == ["fc"]
    assert "made anew" in reasons(model)["attention.in_proj_weight"]


def test_layers_that_have_more_than_their_kind_are_left() -> None:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    model[0].register_parameter("slope", nn.Parameter(torch.ones(8)))
    model[1].register_buffer("seen", torch.ones(8))
    model[2].to(torch.complex64)
    convert(model, seed=1)
    assert list(searched_edges(model)) == ["3"]
    found = reasons(model)
    assert found["0.weight"] == "it has slope beside what Linear has, which a masked layer would not"
    assert found["1.weight"] == "it has seen beside what Linear has, which a masked layer would not"
    assert found["2.weight"] == "its weight is torch.complex64, and masked weights are real"


class ReadingGroupNorm(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_groups, self.weight * 1.0, self.bias * 1.0, self.eps)


class ZeroCentred(nn.RMSNorm):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, 1 + self.weight, self.eps)


class ChannelsFirst(nn.LayerNorm):
    """As timm's LayerNorm2d: its forward hands its tensors on, and does as well without."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


@pytest.mark.filterwarnings("ignore::supermask.SearchWarning")
def test_norms_whose_forward_needs_scale_and_shift_keep_them() -> None:
    for norm, stays in ((ReadingGroupNorm(2, 4), True), (ZeroCentred(4), True), (ChannelsFirst(4), False)):
        model = convert(nn.Sequential(nn.Conv2d(4, 4, 1), norm), seed=1)
        assert (norm.weight is not None) is stays
        model(torch.randn(2, 4, 4, 4))
        if stays:
            assert not norm.weight.requires_grad
            assert "does not do" in reasons(model)["1.weight"]


class Mixer(nn.Module):
    """As transformers' Mamba reads the bias of a projection, and others the scale of a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.free, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4)
        nn.init.ones_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.free.bias is not None:
            x = x + self.free.bias.float()
        x = F.linear(self.free(x), self.proj.weight) + self.proj.bias.float()
        return self.norm(x).to(self.norm.weight.dtype)  # type: ignore[no-any-return]


def test_what_a_module_computes_with_stays() -> None:
    model = convert(nn.Sequential(Mixer()), seed=1)
    assert torch.equal(model[0].proj.bias, torch.ones(4))
    assert model[0].free.bias is None
    assert model[0].norm.weight is not None
    assert sum(parameter.requires_grad for parameter in model.parameters()) == 2
    model(torch.randn(2, 4))
    found = reasons(model)
    assert found["0.proj.bias"] == "bias of a masked layer, which Mixer computes with"
    assert found["0.norm.weight"] == "scale or shift of a normalisation, which Mixer computes with"


class InManyWays(nn.Module):
    """Biases and scales that are computed with, each in another way."""

    def __init__(me) -> None:  # noqa: N805 - whatever it is called
        super().__init__()
        me.a, me.b, me.c, me.d, me.e = (nn.Linear(4, 4) for _ in range(5))
        me.many = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        me.norm, me.other = nn.LayerNorm(4), nn.LayerNorm(4)
        me.free, me.asked = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(me, x: Tensor) -> Tensor:  # noqa: N805
        x += me.a.bias
        bias = me.b.bias
        x = x + bias.float()
        norm = me.norm
        x = norm(x) * norm.weight
        for layer in me.many:
            x = x + layer.bias
        x = torch.addmm(me.c.bias, x, me.c.weight) + torch.cat([me.d.bias[:2], me.d.bias[2:]])
        x = x.mul(getattr(me.other, "weight")) - me.e.bias  # noqa: B009
        if me.asked.bias is not None:
            x = x + me.asked.bias
        return F.linear(x, me.free.weight, me.free.bias)


def test_it_is_found_in_whatever_way_it_is_computed_with() -> None:
    model: Any = convert(InManyWays(), seed=1)
    assert model(torch.randn(2, 4)).shape == (2, 4)
    assert all(layer.bias is not None for layer in (model.a, model.b, model.c, model.d, model.e, *model.many))
    assert model.norm.weight is not None
    assert model.other.weight is not None
    assert model.free.bias is None
    assert model.asked.bias is None


def test_what_was_given_a_forward_by_hand_keeps_it() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    for part, forward in ((model[0], lambda x: 2 * x), (model[2], lambda x: x * model[2].weight)):
        part.forward = forward  # type: ignore[assignment]
    convert(model, seed=1)
    assert list(searched_edges(model)) == ["1"]
    assert reasons(model)["0.weight"] == "its forward was set by hand, and a masked layer would not run it"
    assert torch.equal(model(torch.ones(1, 4)), model[1](2 * torch.ones(1, 4)))


def wrapped(model: nn.Module) -> dict[str, nn.Module]:
    return {
        "OptimizedModule": torch.compile(model),  # type: ignore[dict-item]
        "DataParallel": nn.DataParallel(model),
        "AveragedModel": torch.optim.swa_utils.AveragedModel(model),
        "CheckpointWrapper": checkpoint_wrapper(model),
    }


def test_a_wrapped_network_is_converted_inside() -> None:
    for kind, model in wrapped(mlp()).items():
        with pytest.raises(ValueError, match=f"{kind} wraps a network: convert the one inside"):
            convert(model, seed=1)
    for kind, model in wrapped(convert(mlp(), seed=1)).items():
        assert list(searched_edges(model)) == ["0", "2", "4"], kind
        assert [layer.name for layer in summary(model).layers] == ["0", "2", "4"]
        set_remaining(model, 0.25)
    for kind, part in wrapped(nn.Linear(8, 8)).items():
        if kind == "CheckpointWrapper":
            model = convert(nn.Sequential(part, nn.Linear(8, 8)), seed=1, overrides={"0": 1.0})
            assert {name: edges.remaining for name, edges in searched_edges(model).items()} == {"0": 1.0, "1": 0.5}


def test_what_holds_no_numbers_is_refused_before_anything_changes() -> None:
    lazy = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(4))
    with torch.device("meta"):
        nowhere = nn.Sequential(nn.Linear(4, 4))
    for model, says in (
        (lazy, "1.weight is of a lazy module and has no shape yet: run a batch through the network first"),
        (nn.Sequential(nn.Linear(4, 4), nn.LazyBatchNorm1d()), "1.weight is of a lazy module"),
        (nowhere, "0.weight is on the meta device, which holds no numbers: build the network on a real one"),
    ):
        with pytest.raises(ValueError, match=says):
            convert(model, seed=1)
        assert type(model[0]) is nn.Linear
        assert model[0].weight.requires_grad


def test_a_name_is_no_pattern() -> None:
    model = nn.ModuleDict({"blk[0]": nn.Linear(8, 8), "blk0": nn.Linear(8, 8)})
    assert convert(model, seed=1, overrides={"blk[0]": 1.0})["blk0"].remaining == 0.5  # type: ignore[index]
    model = nn.ModuleDict({"*": nn.Linear(8, 8), "fc": nn.Linear(8, 8)})
    assert list(searched_edges(convert(model, seed=1, skip=["*"]))) == ["fc"]
    with pytest.raises(ValueError, match="no masked layer matches"):
        convert(nn.Sequential(nn.Linear(8, 8)), seed=1, overrides={"[1]": 1.0})


def test_hooks_stay_with_their_layers() -> None:
    model, seen = nn.Sequential(nn.Linear(4, 4)), []
    handle = model[0].register_forward_hook(lambda _m, _x, out: seen.append("forward") or 2 * out)
    model[0].register_forward_pre_hook(lambda _m, args: (args[0] + 1,))
    model[0].register_full_backward_hook(lambda *_: seen.append("backward"))
    convert(model, seed=1)
    x = torch.ones(2, 4, requires_grad=True)
    model(x).sum().backward()
    assert seen == ["forward", "backward"]
    assert torch.equal(model(x), 2 * F.linear(x + 1, model[0].weight))
    handle.remove()
    assert torch.equal(model(x), F.linear(x + 1, model[0].weight))


class Pair(NamedTuple):
    first: Any
    rest: Any


def test_layers_in_plain_containers_are_the_masked_ones() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
            self.order = [self.layers[1], (self.layers[0], nn.ReLU())]
            self.named = {"last": self.layers[2]}
            self._hidden = OrderedDict(last=self.layers[2])
            self.pair = Pair(self.layers[0], deque([self.layers[1]]))
            self.others = [3, "text"]

        def forward(self, x: Tensor) -> Tensor:
            for layer in (self.order[0], *self.order[1], self.named["last"]):  # type: ignore[misc]
                x = layer(x)  # type: ignore[operator]
            return x

    dense = Listed()
    held = dense.others
    model: Any = convert(dense, seed=1)
    assert model.order[0] is model.layers[1]
    assert model.order[1][0] is model.layers[0]
    assert model.named["last"] is model._hidden["last"] is model.layers[2]
    assert model.pair == Pair(model.layers[0], deque([model.layers[1]]))
    assert model.others is held
    model(torch.randn(2, 4)).square().sum().backward()
    assert all(edges.scores.grad is not None for edges in searched_edges(model).values())


def test_it_is_told_when_next_to_nothing_is_masked() -> None:
    model = nn.Sequential(nn.Embedding(1000, 8), nn.Bilinear(8, 8, 8), nn.Linear(8, 8))
    with pytest.warns(SearchWarning) as told:
        convert(model, seed=1)
    assert str(told[0].message).startswith("0.75% of the parameters of Sequential are masked, 64 of 8,584")
    assert "8,000: Embedding has no masked form; 520: Bilinear has no masked form" in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(mlp(), seed=1, skip=["0"])  # which is said by whoever skips


def test_it_is_told_when_a_frozen_scale_makes_a_branch_vanish() -> None:
    class Block(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.fc, self.layer_scale = nn.Linear(4, 4), nn.Parameter(torch.full((4,), value))

    for value in (1e-6, 0.0):
        with pytest.warns(SearchWarning, match=f"0.layer_scale is {value:g} everywhere, and frozen"):
            convert(nn.Sequential(Block(value)), seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(nn.Sequential(Block(1.0)), seed=1)
        token = nn.Sequential(nn.Linear(40, 40))
        token.register_parameter("class_token", nn.Parameter(torch.zeros(1, 1, 40)))  # is added, so zero is no scale
        convert(token, seed=1)
    zero = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))  # as zero_init_residual leaves it
    nn.init.zeros_(zero[1].weight)
    with pytest.warns(SearchWarning, match="1.weight is 0 everywhere"):
        convert(zero, seed=1, norm="freeze")


def test_it_is_told_when_a_rate_changes_nothing() -> None:
    model = convert(mlp(), seed=1, overrides={"*": 0.9})
    with pytest.warns(SearchWarning, match=r"remaining=0.5 changes nothing: all 3 layers have a rate of their own"):
        set_remaining(model, 0.5)


def test_a_refused_conversion_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.MultiheadAttention(4, 2))
    before = {name: (id(module), dict(vars(module))) for name, module in model.named_modules()}
    tensors = {name: (id(tensor), tensor.requires_grad) for name, tensor in model.named_parameters()}

    def check() -> None:
        assert {name: id(module) for name, module in model.named_modules()} == {n: i for n, (i, _) in before.items()}
        assert {n: (id(t), t.requires_grad) for n, t in model.named_parameters()} == tensors
        assert model[1].affine

    for arguments in ({"overrides": {"2.in_proj": 2.0}}, {"skip": ["2.in_proj"]}, {"bias": "none"}, {"seed": True}):
        with pytest.raises((ValueError, TypeError)):
            convert(model, **{"seed": 1, **arguments})
        check()
    monkeypatch.setattr("supermask.networks.convert.set_norm", lambda *_: 1 / 0)  # in the middle
    with pytest.raises(ZeroDivisionError):
        convert(model, seed=1)
    check()
    monkeypatch.undo()
    model.register_parameter("scale", nn.Parameter(torch.full((4,), 1e-6)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SearchWarning):
            convert(model, seed=1)
    assert type(model[0]) is nn.Linear
    assert not isinstance(model[0], SupermaskLinear)


def test_numbers_of_numpy_are_numbers(tmp_path: Any) -> None:
    model = convert(mlp(), seed=np.int64(5), remaining=np.float32(0.5))  # type: ignore[arg-type]
    info = save(model, tmp_path / "ticket", architecture=None)
    assert (info.seed, type(info.seed)) == (5, int)
    for wrong in ({"seed": True}, {"seed": 1, "remaining": True}, {"seed": 1, "overrides": {"0": np.True_}}):
        with pytest.raises(TypeError, match=r"expected an? (integer|number)"):
            convert(mlp(), **wrong)  # type: ignore[arg-type]
