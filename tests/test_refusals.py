"""Whatever is refused, the model, the file and the folder are as they were."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import supermask
from supermask import Architecture, RunOptions, SupermaskError, convert, exports, load, save, set_remaining
from supermask.edges.in_model import searched_edges
from supermask.tickets.save import save_folder
from supermask.training.score_sgd import ScoreSGD


def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))


def searched() -> nn.Module:
    model = convert(dense(), seed=1)
    for edges in searched_edges(model).values():
        edges.remove_unselected()
    return model


class Odd(nn.Module):
    """Has a tensor that a ticket cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 4)
        self.register_buffer("wide", torch.zeros(3, dtype=torch.complex64))


class Versioned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(12, 12), nn.BatchNorm1d(12)
        self.last = nn.Linear(12, 4)

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        raise RuntimeError("loads nothing")


def by_hand() -> nn.Module:
    model = searched()
    searched_edges(model)["0"].signs.bitwise_not_()  # type: ignore[union-attr]
    return model


def averaged() -> nn.Module:
    model, other = searched(), searched()
    set_remaining(other, 0.1)
    with torch.no_grad():
        for mine, theirs in zip(model.buffers(), other.buffers(), strict=True):
            mine.copy_(0.5 * mine + 0.5 * theirs)
    return model


def lazy() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 12), nn.LazyLinear(4))


def attention() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 12), nn.MultiheadAttention(12, 2))


Act = Callable[[nn.Module, Path], object]
REFUSED: dict[str, tuple[Callable[[], nn.Module], Act]] = {
    "convert: a rate": (dense, lambda m, _: convert(m, seed=1, remaining=1.5)),
    "convert: a rate of a layer": (dense, lambda m, _: convert(m, seed=1, overrides={"3": 0.0})),
    "convert: a pattern": (dense, lambda m, _: convert(m, seed=1, skip=["none"])),
    "convert: all skipped": (dense, lambda m, _: convert(m, seed=1, skip=["*"])),
    "convert: a policy": (dense, lambda m, _: convert(m, seed=1, norm="none")),  # type: ignore[arg-type]
    "convert: a distribution": (dense, lambda m, _: convert(m, seed=1, weights="none")),  # type: ignore[arg-type]
    "convert: a seed": (dense, lambda m, _: convert(m, seed=True)),
    "convert: masked": (searched, lambda m, _: convert(m, seed=1)),
    "convert: lazy": (lazy, lambda m, _: convert(m, seed=1)),
    "convert: wrapped": (lambda: nn.DataParallel(dense()), lambda m, _: convert(m, seed=1)),
    "convert: compiled by itself": (
        lambda: nn.Sequential(nn.Linear(12, 12), torch.compile(nn.Linear(12, 4), backend="eager")),  # type: ignore[arg-type]
        lambda m, _: convert(m, seed=1),
    ),
    "convert: half an attention layer": (attention, lambda m, _: convert(m, seed=1, skip=["1.in_proj"])),
    "convert: a method that fails": (dense, lambda m, _: convert(m, seed=1, edges=lambda *_, **__: 1 / 0)),  # type: ignore[arg-type, return-value]
    "rate: more than survived": (searched, lambda m, _: set_remaining(m, 0.9)),
    "rate: NaN": (searched, lambda m, _: set_remaining(m, float("nan"))),
    "state dict: of another seed": (searched, lambda m, _: m.load_state_dict(convert(dense(), seed=2).state_dict())),
    "optimiser: a rate": (searched, lambda m, _: ScoreSGD(m, lr=-1.0)),
    "state dict: signs by hand": (by_hand, lambda m, _: m.state_dict()),
    "save: signs by hand": (by_hand, lambda m, f: save(m, f / "ticket", architecture=None)),
    "save: averaged with others": (averaged, lambda m, f: save(m, f / "ticket", architecture=None)),
    "save: nothing masked": (dense, lambda m, f: save(m, f / "ticket", architecture=None)),
    "save: another architecture": (
        searched,
        lambda m, f: save(m, f / "ticket", architecture=Architecture(name="mlp", arguments={"sizes": [12, 12, 4]})),
    ),
    "save: an encoding": (searched, lambda m, f: save(m, f / "ticket", architecture=None, encoding="zip")),  # type: ignore[arg-type]
    "save: an odd tensor": (lambda: convert(Odd(), seed=1), lambda m, f: save(m, f / "ticket", architecture=None)),
    "save: narrow twice": (
        lambda: convert(dense().to(torch.bfloat16), seed=1),
        lambda m, f: save(m, f / "ticket", architecture=None, precision="bfloat16"),
    ),
    "save: no folder": (searched, lambda m, f: save(m, f / "none" / "ticket", architecture=None)),
    "save: a folder that is a file": (searched, lambda m, f: save_folder(m, f / "ticket", architecture=None)),
    "load: another network": (lambda: nn.Sequential(nn.Linear(12, 3)), lambda m, f: load(f / "ticket", model=m)),
    "load: lazy": (lazy, lambda m, f: load(f / "ticket", model=m)),
    "load: wrapped": (lambda: nn.DataParallel(dense()), lambda m, f: load(f / "ticket", model=m)),
    "load: does not load": (Versioned, lambda m, f: load(f / "named", model=m)),
    "load: no architecture": (dense, lambda _, f: load(f / "ticket")),
    "load: damaged": (dense, lambda m, f: load(f / "damaged", model=m)),
    "dense: masked": (searched, lambda m, f: exports.dense(f / "ticket", model=m)),
    "dense: another network": (lambda: nn.Linear(12, 4), lambda m, f: exports.dense(f / "ticket", model=m)),
    "dense: another shape": (
        lambda: nn.Sequential(nn.Linear(12, 5)),
        lambda m, f: exports.dense(f / "ticket", model=m),
    ),
    "state dict: damaged": (dense, lambda m, f: exports.write_state_dict(f / "damaged", f / "ticket", model=m)),
    "program: another name": (dense, lambda m, f: exports.write_program(f / "ticket", f / "damaged", model=m)),
    "program: no shape": (dense, lambda m, f: exports.write_program(f / "ticket", f / "out.pt2", model=m)),
    "run: a seed": (dense, lambda _, f: RunOptions(seed=-1, folder=f / "run")),
}


def everything(model: nn.Module) -> list[Any]:
    """The modules of a network, what each has, and all bits."""
    found: list[Any] = []
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | tuple)}
        found.append((name, id(module), type(module), plain, list(module._parameters), list(module._buffers)))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        where = name, id(tensor), tensor.requires_grad
        lazy_or_bits = None if nn.parameter.is_lazy(tensor) else tensor.detach().clone().reshape(-1).view(torch.uint8)
        found.append((where, lazy_or_bits if lazy_or_bits is None else lazy_or_bits.tolist()))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = searched()
    save(model, tmp_path / "ticket", architecture=None)
    data = (tmp_path / "ticket").read_bytes()
    (tmp_path / "damaged").write_bytes(data[:-3])
    save(convert(Versioned(), seed=1), tmp_path / "named", architecture=None)
    return tmp_path


@pytest.mark.parametrize("label", list(REFUSED))
def test_what_is_refused_changes_nothing(label: str, folder: Path) -> None:
    build, act = REFUSED[label]
    model = build()
    before = everything(model)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    random = torch.random.get_rng_state()
    with pytest.raises((SupermaskError, ValueError, TypeError, RuntimeError, ZeroDivisionError)):
        act(model, folder)
    assert everything(model) == before
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert torch.equal(torch.random.get_rng_state(), random)


def test_a_file_object_that_is_refused_has_nothing_written() -> None:
    file = io.BytesIO(b"before")
    file.seek(0, io.SEEK_END)
    with pytest.raises(supermask.TicketError):
        save(dense(), file, architecture=None)
    assert file.getvalue() == b"before"
