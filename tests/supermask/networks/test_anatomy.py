"""What a network is made of, found in one walk."""

from collections import Counter

import pytest
import torch
from torch import nn

from supermask.networks.anatomy import carve
from supermask.networks.convert import convert
from supermask.networks.layers import SupermaskLinear
from tests.supermask.tickets.networks import Attention, ConvNet, Tied


class Odd(nn.Module):
    """Edges without a masked layer, and a masked layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.bare = nn.ModuleDict({"edges": SupermaskLinear(4, 3, seed=1).edges})
        self.alone = SupermaskLinear(3, 2, seed=1, layer=1).edges
        self.fc = SupermaskLinear(2, 5, torch.ones(5), seed=1, layer=2)
        self.again = self.fc


def test_places_of_dense_layers() -> None:
    slots = carve(Attention()).slots
    assert {name: (slot.shape, slot.outputs, slot.weight, slot.bias) for name, slot in slots.items()} == {
        "first.in_proj": ((36, 12), 36, "first.in_proj_weight", "first.in_proj_bias"),
        "first.out_proj": ((12, 12), 12, "first.out_proj.weight", "first.out_proj.bias"),
        "second.in_proj": ((36, 12), 36, "second.in_proj_weight", "second.in_proj_bias"),
        "second.out_proj": ((12, 12), 12, "second.out_proj.weight", "second.out_proj.bias"),
        "fc": ((4, 12), 4, "fc.weight", "fc.bias"),
    }
    assert not carve(Attention()).edges
    assert carve(ConvNet()).slots["up"].shape == (10, 4, 3, 3)
    assert carve(ConvNet()).slots["up"].outputs == 4
    (slot,) = carve(nn.Linear(4, 2)).slots.values()
    assert (slot.weight, slot.bias) == ("weight", "bias")


def test_a_tied_layer_is_no_place_and_a_layer_of_two_names_is_one() -> None:
    assert list(carve(Tied()).slots) == ["twice"]


def test_masked_layers_and_who_has_their_edges() -> None:
    model = Odd()
    network = carve(model)
    assert {name: slot.owner for name, slot in network.slots.items()} == {
        "bare": model.bare,
        "alone": model,
        "fc": model.fc,
    }
    assert network.edges == {"bare": model.bare["edges"], "alone": model.alone, "fc": model.fc.edges}
    assert (network.slots["fc"].outputs, network.slots["bare"].outputs) == (5, 0)
    assert (list(network.tensors), network.first) == (["fc.bias"], {"fc.bias": "fc.bias", "again.bias": "fc.bias"})
    edges = carve(model.alone)
    assert (list(edges.slots), edges.slots[""].owner, edges.tensors) == ([""], None, {})


def test_tensors_go_by_the_first_of_their_names() -> None:
    model = Tied()
    network = carve(model)
    assert list(network.tensors) == ["embedding.weight", "twice.weight", "twice.bias"]
    assert network.tensors["embedding.weight"] is model.embedding.weight
    assert network.first == {
        "embedding.weight": "embedding.weight",
        "twice.weight": "twice.weight",
        "twice.bias": "twice.bias",
        "again.weight": "twice.weight",
        "again.bias": "twice.bias",
        "out.weight": "embedding.weight",
    }


@pytest.mark.parametrize("masked", [False, True])
def test_normalisation(masked: bool) -> None:
    model = convert(ConvNet(), 3) if masked else ConvNet()
    network = carve(model)
    affine = set() if masked else {"bn.weight", "bn.bias"}
    assert list(network.norms) == ["bn", "average", "norm"]
    assert list(network.batch_norms) == ["bn", "average"]
    bn = network.batch_norms["bn"]
    assert bn.affine == affine
    assert set(bn.names.values()) == affine | {
        f"bn.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert (bn.weight is None) == (bn.bias is None) == masked
    assert bn.module is model.bn
    assert not carve(nn.BatchNorm1d(3, track_running_stats=False)).batch_norms
    assert carve(nn.BatchNorm1d(3)).norms[""].affine == {"weight", "bias"}


def test_what_is_no_dense_tensor_is_named() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> str:
            return "text"

        def set_extra_state(self, state: str) -> None: ...

    model = nn.Sequential(Extra(2, 2), nn.Linear(2, 2))
    model.register_buffer("sparse", torch.eye(2).to_sparse())
    assert carve(model).odd == ("sparse", "0._extra_state")
    assert carve(nn.Linear(2, 2)).odd == ()


def test_every_module_is_asked_for_its_tensors_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[int] = Counter()
    real = nn.Module._save_to_state_dict

    def save(module: nn.Module, *args: object) -> None:
        asked[id(module)] += 1
        real(module, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(nn.Module, "_save_to_state_dict", save)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(5)))
    carve(model)
    assert set(asked.values()) == {1}
