"""The dense network of a ticket: its logits to the bit, in the original layers alone."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from supermask.edges.packed import PackedEdges
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.tickets.dense import dense
from supermask.tickets.exports import write_program, write_state_dict
from supermask.tickets.load import load
from supermask.tickets.save import save
from tests.capabilities import a_zero_bias_changes_no_product
from tests.supermask.tickets.digit_tickets import CONV2, MLP, RESNET, SMALL, digits, refused, ticket, transformer
from tests.supermask.tickets.networks import ConvNet, Masked, Tied, lived, mlp, one_linear


@pytest.fixture
def plain_attention() -> Iterator[None]:
    """Attention without the fused kernel, which adds up in another order."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def same(one: Tensor, two: Tensor) -> bool:
    return one.dtype is two.dtype and torch.equal(one, two)


@pytest.mark.usefixtures("plain_attention")
@pytest.mark.parametrize("policy", ["drop", "freeze"])
@pytest.mark.parametrize(
    ("architecture", "fresh", "shape"),
    [
        (MLP, MLP.build, (64,)),
        (CONV2, CONV2.build, (1, 8, 8)),
        (RESNET, RESNET.build, (3, 64, 64)),
        (None, transformer, (3, 32, 32)),
        (None, ConvNet, (3, 8, 8)),
    ],
)
def test_dense_gives_the_logits_to_the_bit(
    architecture: Architecture | None, fresh: Callable[[], nn.Module], shape: tuple[int, ...], policy: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    norm = "freeze" if policy == "freeze" else "non_affine"
    file = ticket(tmp_path, architecture, fresh(), digits(16, shape), bias=policy, norm=norm)

    def model() -> nn.Module | None:
        return fresh() if architecture is None else None

    network = dense(file, model=model())
    assert not any(tensor.requires_grad or tensor.is_meta for tensor in network.state_dict(keep_vars=True).values())
    assert not any(module.training for module in network.modules())
    assert {type(module) for module in network.modules()} == {type(module) for module in fresh().modules()}
    original = fresh().state_dict()
    assert {name: (t.shape, t.dtype) for name, t in network.state_dict().items()} == {
        name: (t.shape, t.dtype) for name, t in original.items()
    }
    searched = load(file, model=model(), weights="cached")
    for count in (1, 7):
        x = digits(count, shape)
        if policy == "drop" and fresh is transformer and not a_zero_bias_changes_no_product():
            torch.testing.assert_close(network(x), searched(x))  # the dense network has biases, of zeros
        else:
            assert same(network(x), searched(x))


def test_fused_attention_differs_in_rounding_only(tmp_path: Path) -> None:
    x = digits(8, (3, 32, 32))
    file = ticket(tmp_path, None, transformer(), x)
    torch.testing.assert_close(dense(file, model=transformer())(x), load(file, model=transformer())(x))


@pytest.mark.parametrize("saving", [{"precision": "bfloat16"}, {"fold": True}, {"fold": True, "norm": "non_affine"}])
def test_dense_of_narrowed_and_folded_tickets(saving: dict[str, Any], tmp_path: Path) -> None:
    x = digits(16, (3, 32, 32))
    file = ticket(tmp_path, SMALL, SMALL.build(), x, **saving)
    network = dense(file)
    assert same(network(x), load(file, weights="cached")(x))
    if "fold" in saving:
        norm: Any = network.get_submodule("stem.norm1")
        assert torch.equal(norm.running_mean, torch.zeros(16))
        assert torch.equal(norm.running_var, torch.full((16,), 1 - norm.eps))
        assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("weights", ["unsigned_constant", "kaiming_normal", "kaiming_uniform"])
def test_dense_of_every_distribution(weights: str, tmp_path: Path) -> None:
    x = digits(16, (64,))
    file = ticket(tmp_path, MLP, MLP.build(), x, weights=weights)
    assert same(dense(file)(x), load(file, weights="cached")(x))


def coats_and_flips(folder: Path) -> Path:
    layer = one_linear(seed=1)
    coats = torch.tensor([[[15, 0, 0, 0]] * 4, [[5, 0, 0, 0]] * 4], dtype=torch.int32)
    flips = torch.tensor([[3, 0, 0, 0]] * 4, dtype=torch.int32)
    layer.edges = PackedEdges((4, 4), coats, flips=flips, seed=3, layer=0, weights="signed_constant", constant=0.3)
    save(layer, folder / "t", architecture=None)
    return folder / "t"


def test_coats_and_flips(tmp_path: Path) -> None:
    file, x = coats_and_flips(tmp_path), torch.randn(2, 4)
    expected = load(file, model=nn.Linear(4, 4), weights="cached")(x)
    assert same(dense(file, model=nn.Linear(4, 4))(x), expected)
    write_program(file, tmp_path / "t.pt2", shape=(4,), model=nn.Linear(4, 4), packed=True)
    torch.testing.assert_close(torch.export.load(tmp_path / "t.pt2").module()(x), expected)


def test_a_model_keeps_its_dtype(linear: Path) -> None:
    network, x = dense(linear, model=MLP.build().double()), digits(4, (64,))
    assert same(network(x.double()), copy.deepcopy(dense(linear)).double()(x.double()))


def test_tied_tensors(tmp_path: Path) -> None:
    """They stay one in the network, and are there under each name in the file."""
    save(lived(convert(Tied(), 3, bias="train"), 4, 9), tmp_path / "t", architecture=None)
    x = torch.randn(4, 9)
    expected = load(tmp_path / "t", model=Tied(), weights="cached")(x)
    network: Any = dense(tmp_path / "t", model=Tied())
    assert network.out.weight is network.embedding.weight
    assert same(network(x), expected)
    write_state_dict(tmp_path / "t", tmp_path / "state", model=Tied())
    loaded = Tied()
    loaded.load_state_dict(safetensors.torch.load_file(tmp_path / "state"))
    assert same(loaded(x), expected)


def test_state_dict_is_that_of_torchvisions_own_network(tmp_path: Path) -> None:
    x = digits(8, (3, 64, 64))
    file = ticket(tmp_path, RESNET, RESNET.build(), x, bias="drop", remaining=0.2)
    write_state_dict(file, tmp_path / "net.safetensors")
    network = torchvision.models.resnet18(num_classes=10)
    network.load_state_dict(safetensors.torch.load_file(tmp_path / "net.safetensors"), strict=True)
    assert same(network.eval()(x), load(file, weights="cached")(x))


def test_models_that_do_not_fit_are_left_as_they_were(linear: Path, tmp_path: Path) -> None:
    masked = convert(MLP.build(), 7)
    other = mlp(64, 96, 11).build()
    biased, folded = tmp_path / "biased", tmp_path / "folded"
    save(lived(convert(nn.Sequential(nn.Linear(4, 4)), 3, bias="freeze"), 2, 4), biased, architecture=None)
    plain = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))
    save(lived(convert(copy.deepcopy(plain), 3), 2, 4), folded, architecture=None, fold=True)
    for file, model, parts in [
        (linear, masked, ("MLP has masked layers, 'fc1', 'fc2'", "before supermask.convert")),
        (linear, other, ("layer 'fc2': shape (10, 96) in the ticket, (11, 96) in the network",)),
        (biased, nn.Sequential(nn.Linear(4, 4, bias=False)), ("layer '0' has a bias in the ticket, and none in",)),
        (folded, plain, ("batch norm '1' is folded", "fold=False")),
    ]:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        refused(lambda file=file, model=model: dense(file, model=model), str(file), *parts)  # type: ignore[misc]
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    refused(lambda: dense(biased), "names no architecture", "model=")
    save(lived(Masked(), 3, 2, 6, 6), tmp_path / "t", architecture=None)
    refused(lambda: dense(tmp_path / "t", model=Masked()), "Masked has masked layers, 'conv', 'fc'")
    with pytest.raises(TypeError, match="a network and not its class"):
        dense(linear, model=nn.Linear)  # type: ignore[arg-type]
