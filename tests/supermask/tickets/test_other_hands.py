"""Tickets of networks that other hands wrap, version or compute with: the network that is loaded is the one saved."""

import copy
import io
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper, offload_wrapper

from supermask.networks.convert import convert
from supermask.tickets import exports
from supermask.tickets.errors import TicketError
from supermask.tickets.load import inspect, load, verify
from supermask.tickets.save import save


def saved(model: nn.Module, **how: Any) -> io.BytesIO:
    file = io.BytesIO()
    save(model, file, **{"architecture": None, **how})
    file.seek(0)
    return file


class Versioned(nn.Module):
    """Loads the dicts of its first version otherwise than its own."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("scale", torch.full((4,), 3.0))

    def _load_from_state_dict(self, state: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
        if local_metadata.get("version") is None and prefix + "scale" in state:
            state[prefix + "scale"] = 1 / state[prefix + "scale"]
        super()._load_from_state_dict(state, prefix, local_metadata, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.scale  # type: ignore[no-any-return]


class Hooked(nn.Module):
    """The same by a hook, as spectral_norm has it, and a part deeper."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.register_buffer("scale", torch.full((4,), 3.0))
        self.register_load_state_dict_pre_hook(self._older)

    @staticmethod
    def _older(_module: nn.Module, state: Any, prefix: str, local_metadata: Any, *_: Any) -> None:
        if "version" not in local_metadata:
            state[prefix + "scale"] = 1 / state[prefix + "scale"]

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.scale  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Versioned, Hooked])
@pytest.mark.parametrize("nested", [False, True])
def test_state_that_knows_its_version(kind: type[nn.Module], nested: bool, tmp_path: Path) -> None:
    def dense() -> nn.Module:
        return nn.Sequential(kind()) if nested else kind()

    model = convert(dense(), seed=1).eval()
    file, x = saved(model), torch.randn(2, 4)
    found = load(file, model=dense())
    assert torch.equal(next(value for name, value in found.named_buffers() if "scale" in name), torch.full((4,), 3.0))
    assert torch.equal(found(x), model(x))
    file.seek(0)
    assert torch.equal(exports.dense(file, model=dense())(x), model(x))
    file.seek(0)
    with pytest.raises(TicketError, match=r"loads a state dict by the versions of its modules.*exports\.dense"):
        exports.write_state_dict(file, tmp_path / "dense.safetensors", model=dense())
    assert not list(tmp_path.iterdir())


def test_a_module_may_load_into_tensors_that_it_makes_anew() -> None:
    class Renewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("book", torch.zeros(1))

        def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
            self.book = torch.empty_like(state[prefix + "book"])
            super()._load_from_state_dict(state, prefix, *rest)

    model = Renewing()
    model.book += 3
    assert load(saved(convert(model, seed=1)), model=Renewing()).book == 3


def test_whatever_a_module_raises_as_it_loads_is_a_ticket_error() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.bn = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
            state[prefix + "fc.weight"]

    model = Looking()
    with pytest.raises(TicketError, match=r"KeyError: 'fc\.weight'"):
        load(saved(convert(Looking(), seed=1)), model=model)
    assert type(model.fc) is nn.Linear


def test_mnasnet_comes_back() -> None:
    def dense() -> nn.Module:
        return torchvision.models.mnasnet0_5(num_classes=3)

    model, x = convert(dense(), seed=1).eval(), torch.randn(1, 3, 32, 32)
    assert torch.equal(load(saved(model), model=dense())(x), model(x))


def test_a_network_that_does_not_take_what_is_loaded_stays_as_it_was() -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.bn = nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.register_buffer("scale", torch.ones(4))

        def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
            state[prefix + "scale"] = state[prefix + "scale"] + 1
            super()._load_from_state_dict(state, prefix, *rest)

    file = saved(convert(Changing(), seed=1))
    model = Changing()
    before = copy.deepcopy(dict(model.named_parameters())), copy.deepcopy(dict(model.named_buffers()))
    with pytest.raises(TicketError, match="scale is another after it was loaded: a module changes what it loads"):
        load(file, model=model)
    assert type(model.fc) is nn.Linear
    assert model.bn.affine
    assert all(torch.equal(value, before[0][name]) for name, value in model.named_parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[1][name]) for name, value in model.named_buffers())


def test_verify_builds_the_network_that_load_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from supermask.networks.architecture import Architecture

    architecture = Architecture(name="mlp", arguments={"sizes": [8, 6, 4]})
    save(convert(architecture.build(), seed=1), tmp_path / "ticket", architecture=architecture)
    verify(tmp_path / "ticket")
    monkeypatch.setattr("supermask.tickets.assemble.replace_layers", lambda *_: 1 / 0)
    with pytest.raises(TicketError, match="ZeroDivisionError"):
        verify(tmp_path / "ticket")


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": compiled,
    "DataParallel": nn.DataParallel,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "checkpointed": checkpoint_wrapper,
    "offloaded": offload_wrapper,
    "compiled average": lambda model: compiled(torch.optim.swa_utils.AveragedModel(model)),
}


@pytest.mark.parametrize("label", list(WRAPPERS))
def test_a_ticket_has_the_names_inside(label: str) -> None:
    plain = convert(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)), seed=1)
    expected = saved(plain).getvalue()
    assert saved(WRAPPERS[label](copy.deepcopy(plain))).getvalue() == expected
    dense = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    with pytest.raises(TicketError, match=r"wraps a network: give the one inside, its ._?[a-z_]+, and wrap that again"):
        load(io.BytesIO(expected), model=WRAPPERS[label](dense))
    assert type(dense[0]) is nn.Linear


@pytest.mark.parametrize("label", ["compiled", "checkpointed", "offloaded"])
def test_parts_that_are_wrapped(label: str) -> None:
    def dense(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
        block = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
        return nn.Sequential(wrap(block), wrap(nn.Sequential(nn.Linear(8, 4))))

    plain = convert(dense(lambda part: part), seed=1).eval()
    file = saved(plain)
    model = convert(dense(WRAPPERS[label]), seed=1)
    assert saved(model).getvalue() == file.getvalue()
    assert [layer.name for layer in inspect(file).layers] == ["0.0", "1.0"]
    x = torch.randn(3, 8)
    file.seek(0)
    found = load(file, model=dense(WRAPPERS[label]))
    torch.testing.assert_close(found(x), plain(x))
    file.seek(0)
    network = exports.dense(file, model=dense(WRAPPERS[label]))
    torch.testing.assert_close(network(x), plain(x))
    file.seek(0)
    assert [type(part) for part in load(file, model=dense(lambda part: part))] == [nn.Sequential, nn.Sequential]


def test_a_layer_that_is_compiled_by_itself_is_refused() -> None:
    """torch binds its forward to the dense layer, whatever stands in its place."""
    model = nn.Sequential(nn.Linear(8, 8), compiled(nn.Linear(8, 4)))
    with pytest.raises(ValueError, match="layer '1' is compiled by itself"):
        convert(model, seed=1)
    plain = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    with pytest.raises(TicketError, match="layer '1' is compiled by itself"):
        load(saved(convert(plain, seed=1)), model=model)
    assert type(model[0]) is nn.Linear


def test_shards_are_no_network() -> None:
    kind = types.new_class("FullyShardedDataParallel", (nn.Module,))
    kind.__module__ = "torch.distributed.fsdp.fully_sharded_data_parallel"
    wrapper = kind()
    wrapper.add_module("_fsdp_wrapped_module", convert(nn.Sequential(nn.Linear(4, 4)), seed=1))
    with pytest.raises(TicketError, match="FullyShardedDataParallel holds a shard of each tensor"):
        saved(wrapper)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dense_transformers_keep_padded_positions(norm_first: bool) -> None:
    def dense() -> nn.TransformerEncoder:
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
        return nn.TransformerEncoder(layer, 2)

    model = convert(dense(), seed=1).eval()
    found = exports.dense(saved(model), model=dense())
    x, padding = torch.randn(2, 5, 16), torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]).bool()
    causal = nn.Transformer.generate_square_subsequent_mask(5) < 0
    with torch.no_grad():
        for arguments in ({"src_key_padding_mask": padding}, {"src_key_padding_mask": padding, "mask": causal}):
            assert torch.equal(found(x, **arguments), model(x, **arguments))
            assert torch.equal(found.layers[0](x, None, padding), model.layers[0](x, None, padding))
