"""A network that does not fit a ticket, or cannot be one, is refused by name."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from supermask.edges.in_model import all_edges
from supermask.edges.packed import PackedEdges
from supermask.kernels.base.bits import pack
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.networks.layers import SupermaskLinear
from supermask.networks.rates import set_remaining
from supermask.tickets.errors import TicketError
from supermask.tickets.load import load
from supermask.tickets.save import save
from tests.supermask.tickets.networks import ConvNet, Tied, lived, mlp, one_linear, refused, searched


def test_every_mismatch_of_a_model_is_named_and_the_model_left_as_it_was(ticket: Path) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(9, 6)
            self.norm1 = nn.BatchNorm1d(6, track_running_stats=False)
            self.head = nn.Linear(5, 3)
            self.masked = SupermaskLinear(3, 3, seed=0)

    model = Other()
    before = dict(model.state_dict(keep_vars=True))
    refused(
        ticket,
        "layer 'fc1': shape (5, 9) in the ticket, (6, 9) in the network",
        "layer 'fc2': not in the network",
        "layer 'masked': masked in the network, not in the ticket",
        "tensor 'norm1.running_mean': not in the network",
        "tensor 'norm1.num_batches_tracked': not in the network",
        "tensor 'head.weight': not in the ticket",
        "tensor 'head.bias': not in the ticket",
        "Other",
        model=model,
    )
    after = dict(model.state_dict(keep_vars=True))
    assert before.keys() == after.keys()
    assert all(after[name] is tensor for name, tensor in before.items())


def test_tensor_shapes_and_dtypes_that_differ(tmp_path: Path) -> None:
    path = tmp_path / "t"
    save(lived(convert(ConvNet(), 3, bias="freeze", norm="freeze"), 4, 3, 8, 8), path, architecture=None)
    model = ConvNet()
    model.scale = nn.Parameter(torch.ones(2))
    model.norm = nn.LayerNorm(17)
    model.average.num_batches_tracked = torch.tensor(0.5)
    refused(
        path,
        "tensor 'scale': torch.float32 () in the ticket, torch.float32 (2,) in the network",
        "tensor 'norm.weight': torch.float32 (16,) in the ticket, torch.float32 (17,) in the network",
        "tensor 'average.num_batches_tracked': torch.int64 () in the ticket, torch.float32 () in the network",
        model=model,
    )


def test_half_affine_norm_is_a_mismatch(tmp_path: Path) -> None:
    model = ConvNet()
    model.norm = nn.LayerNorm(16, bias=False)
    save(lived(convert(model, 3, norm="freeze"), 4, 3, 8, 8), tmp_path / "t", architecture=None)
    refused(tmp_path / "t", "tensor 'norm.bias': not in the ticket", model=ConvNet())


def test_tied_layer_cannot_take_a_mask(tmp_path: Path) -> None:
    model = Tied()
    model.out = nn.Linear(6, 11, bias=False)
    save(lived(convert(model, 3), 4, 9), tmp_path / "t", architecture=None)
    refused(tmp_path / "t", "layer 'out': not in the network", model=Tied())


def test_no_architecture_and_no_model(tmp_path: Path) -> None:
    save(searched(mlp(9, 5, 3), 4, 9), tmp_path / "t", architecture=None)
    refused(tmp_path / "t", "no architecture", "model=")


def test_save_refuses_an_architecture_that_is_not_the_models(tmp_path: Path) -> None:
    """Found when the search is there, and not when the ticket is read."""
    model = searched(mlp(9, 5, 3), 4, 9)
    with pytest.raises(TicketError, match=r"layer 'fc2': shape \(3, 5\) in the ticket, \(4, 5\) in the network"):
        save(model, tmp_path / "t", architecture=mlp(9, 5, 4))
    with pytest.raises(TicketError, match="no architecture is called 'mlpp'"):
        save(model, tmp_path / "t", architecture=Architecture(name="mlpp"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (nn.Linear(3, 3), ["Linear has no masked layer"]),
        (nn.Sequential(one_linear(seed=1), one_linear(seed=2, layer=1)), ["'0' has 1", "'1' has 2", "one seed"]),
        (nn.Sequential(one_linear(seed=1), one_linear(seed=1)), ["'0'", "'1'", "index 0"]),
    ],
)
def test_networks_that_cannot_be_tickets(model: nn.Module, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "t"
    with pytest.raises(TicketError) as caught:
        save(model, path, architecture=None)
    for part in (str(path), *parts):
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_constants_are_finite(value: float, tmp_path: Path) -> None:
    edges = PackedEdges((4, 4), pack(torch.ones(4, 4, dtype=torch.bool)), seed=1, layer=0, weights="signed_constant",
                        constant=value)  # fmt: skip
    model = nn.Sequential(SupermaskLinear(4, 4, edges=edges))
    with pytest.raises(TicketError, match=f"layer '0': constant {value}"):
        save(model, tmp_path / "t", architecture=None)


@pytest.mark.parametrize(
    ("tensor", "part"),
    [
        (torch.zeros(2, dtype=torch.complex64), "torch.complex64"),
        (torch.zeros(2, 2).to_sparse(), "no dense tensor"),
    ],
)
def test_tensors_that_do_not_fit_a_ticket(tensor: torch.Tensor, part: str, tmp_path: Path) -> None:
    model = nn.Sequential(one_linear(seed=1))
    model.register_buffer("extra", tensor)
    with pytest.raises(TicketError, match=part) as caught:
        save(model, tmp_path / "t", architecture=None)
    assert "'extra'" in str(caught.value)


def test_tensor_with_the_name_of_a_mask(tmp_path: Path) -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.edges = all_edges(one_linear(seed=1))[""]
            self.register_buffer("mask", torch.zeros(2))

    with pytest.raises(TicketError, match=r"'inner\.mask'"):
        save(nn.ModuleDict({"inner": Owner()}), tmp_path / "t", architecture=None)


def test_scores_that_are_nan_are_not_saved(tmp_path: Path) -> None:
    model = one_linear(seed=1)
    with torch.no_grad():
        model.edges.scores[0, 0] = math.nan
    with pytest.raises(TicketError, match="scores are NaN"):
        save(model, tmp_path / "t", architecture=None)
    with pytest.raises(TypeError, match=r"supermask\.Architecture"):
        save(one_linear(seed=1), tmp_path / "t", architecture="mlp")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_loaded_network_says_that_it_is_not_searched_further(tmp_path: Path) -> None:
    save(one_linear(seed=1), tmp_path / "t", architecture=None)
    loaded = load(tmp_path / "t", model=nn.Linear(4, 4))
    with pytest.raises(ValueError, match="from a ticket"):
        set_remaining(loaded, 0.1)
    with pytest.raises(ValueError, match="its mask is final"):
        loaded.remaining = 0.1
