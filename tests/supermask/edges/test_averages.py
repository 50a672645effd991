"""Who averages a network takes its bits for numbers: of bits that did not change the average is these bits."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from supermask.edges.base import AveragedError
from supermask.edges.exact import checksum, version
from supermask.edges.in_model import all_edges, searched_edges
from supermask.edges.stored import NotStorable
from supermask.networks.convert import convert
from supermask.networks.rates import set_remaining
from supermask.tickets.load import load
from supermask.tickets.save import save
from tests.devices import DEVICE

SEED = 2**40 + 3  # which float32 has no room for
AVERAGES: dict[str, Callable[..., Any]] = {
    "equal weights": lambda average, now, count: average + (now - average) / (count + 1),
    "0.9": lambda average, now, _: 0.9 * average + 0.1 * now,
    "0.99998": lambda average, now, _: 0.99998 * average + 0.00002 * now,
}


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))


def searched(*, remove: bool = True) -> nn.Module:
    model = convert(dense(), seed=SEED, remaining=0.3).to(DEVICE)
    first, second = searched_edges(model).values()
    first.draw_weights(first.mask(), 1)
    for edges in (first, second) if remove else ():
        edges.remove_unselected()
    return model


def updated(model: nn.Module, average: Any, *, use_buffers: bool = True) -> AveragedModel:
    """`model` averaged with itself five times."""
    averaged = AveragedModel(model, avg_fn=average, use_buffers=use_buffers)
    for _ in range(5):
        averaged.update_parameters(model)
    return averaged


def check_equal(one: nn.Module, two: nn.Module) -> None:
    assert [name for name, _ in one.named_buffers()] == [name for name, _ in two.named_buffers()]
    for (name, a), (_, b) in zip(one.named_buffers(), two.named_buffers(), strict=True):
        assert torch.equal(a, b), name


def of_ticket(model: nn.Module, tmp_path: Any) -> nn.Module:
    save(model, tmp_path / "ticket.safetensors", architecture=None)
    return load(tmp_path / "ticket.safetensors", model=dense(), device=DEVICE)


@pytest.mark.parametrize("average", list(AVERAGES))
@pytest.mark.parametrize("kind", ["one cycle", "hard pruned", "of a ticket"])
def test_the_average_of_what_does_not_change_is_itself(kind: str, average: str, tmp_path: Any) -> None:
    model = searched(remove=kind != "one cycle")
    if kind == "of a ticket":
        model = of_ticket(model, tmp_path)
    averaged = updated(model, AVERAGES[average]).eval()
    check_equal(model.eval(), averaged.module)
    x = torch.randn(3, 256, device=DEVICE)
    assert torch.allclose(averaged(x), model(x), rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(all_edges(model).values(), all_edges(averaged).values(), strict=True):
        assert torch.equal(mine.mask(), theirs.mask())
    again = searched(remove=kind == "hard pruned") if kind != "of a ticket" else of_ticket(searched(), tmp_path)
    again.load_state_dict(averaged.module.state_dict())


def test_averages_over_a_state_dict_and_by_hand() -> None:
    model = searched()
    by_dict, by_hand = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        for _ in range(3):
            for average, now in zip(by_dict.state_dict().values(), model.state_dict().values(), strict=True):
                average.copy_(0.99 * average + 0.01 * now)
            for average, now in zip(by_hand.buffers(), model.buffers(), strict=True):
                average.copy_(average + (now - average) / 7)
    for averaged in (by_dict, by_hand):
        check_equal(model.eval(), averaged.eval())


def test_buffers_that_are_copied_follow_the_model() -> None:
    model = searched()
    averaged = updated(model, None, use_buffers=False)
    set_remaining(model, 0.1)
    for edges in searched_edges(model).values():
        edges.remove_unselected()
    averaged.update_parameters(model)
    check_equal(model.eval(), averaged.eval().module)


def test_bits_averaged_with_others_are_refused() -> None:
    model = searched()
    averaged = AveragedModel(model, avg_fn=AVERAGES["0.9"], use_buffers=True)
    averaged.update_parameters(model)
    set_remaining(model, 0.1)
    for edges in searched_edges(model).values():
        edges.remove_unselected()
    averaged.update_parameters(model)
    with pytest.raises(AveragedError, match=r"kept of a masked layer .* were averaged with others"):
        averaged.eval()
    with pytest.raises(AveragedError):
        averaged.module.state_dict()
    with pytest.raises(AveragedError):
        searched_edges(averaged)["0"].stored()


def test_a_ticket_averaged_in_place_is_refused(tmp_path: Any) -> None:
    """What was loaded holds no copies of its bits; a copy of it does."""
    model = of_ticket(searched(), tmp_path)
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.copy_(0.9 * buffer + 0.1 * buffer)
    with pytest.raises(AveragedError, match="packed"):
        model(torch.randn(2, 256, device=DEVICE))


def test_bits_that_are_written_by_name_stay_as_written() -> None:
    model = searched()
    edges = searched_edges(model)["0"]
    with torch.no_grad():
        edges.survivors[0, 0] &= ~1  # type: ignore[index]
        written = edges.survivors.clone()  # type: ignore[union-attr]
    model.eval().train()
    model.state_dict()
    assert torch.equal(edges.survivors, written)  # type: ignore[arg-type]


def test_changed_identities_are_no_state() -> None:
    edges = searched_edges(searched())["0"]
    edges.seed += 1
    with pytest.raises(NotStorable, match="its seed, layer or distribution was changed after it was made"):
        edges.state_dict()


def test_copies_and_moves_know_what_they_hold() -> None:
    model = searched()
    for moved in (copy.deepcopy(model), copy.deepcopy(model).half(), copy.deepcopy(model).double().float()):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            averaged = updated(moved, AVERAGES["0.9"]).eval()
        check_equal(moved.eval(), averaged.module)


def test_checksums_are_odd_and_such_as_no_float_is() -> None:
    seen = set()
    for seed in range(64):
        bits = torch.randint(2**31, (5,), dtype=torch.int32, generator=torch.Generator().manual_seed(seed))
        for buffers in ({"a": bits, "b": None}, {"a": None, "b": bits}, {"a": bits.flip(0), "b": bits}):
            total = int(checksum(buffers, torch.device("cpu")))
            assert total % 2 == 1
            assert 2**61 < total < 2**62
            assert int(float(total)) != total
            seen.add(total)
    assert len(seen) == 3 * 64


def test_tensors_are_told_apart() -> None:

    tensor: Tensor = torch.zeros(3)
    before = version(tensor)
    tensor.add_(1)
    assert version(tensor) == before + 1
    with torch.inference_mode():
        assert version(torch.zeros(3)) == 0


def test_many_updates_after_a_change_are_refused_too() -> None:
    """Truncation takes one at each update, so what an average tolerates is not how far its integers are."""
    model = searched(remove=False)
    averaged = AveragedModel(model, avg_fn=lambda average, now, _: 0.99 * average + 0.01 * now, use_buffers=True)
    for rate in (0.3, 0.1):
        set_remaining(model, rate)
        for _ in range(300):
            averaged.update_parameters(model)
    with pytest.raises(AveragedError, match="kept"):
        averaged.eval()


def test_averages_that_leave_int64_out() -> None:
    model = searched()
    averaged = copy.deepcopy(model)
    with torch.no_grad():
        for average, now in zip(averaged.buffers(), model.buffers(), strict=True):
            if average.dtype is not torch.int64:
                average.copy_(0.9 * average + 0.1 * now)
    check_equal(model.eval(), averaged.eval())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_averages_of_state_dicts_are_loaded(dtype: torch.dtype) -> None:
    model, other = searched(), searched()
    state, theirs = model.state_dict(), other.state_dict()
    mean = {name: (0.5 * state[name].to(dtype) + 0.5 * theirs[name].to(dtype)).to(state[name].dtype) for name in state}
    model.load_state_dict(mean)
    check_equal(model.eval(), other.eval())
    set_remaining(other, 0.1)
    theirs = other.state_dict()
    mixed = {name: (0.5 * state[name].to(dtype) + 0.5 * theirs[name].to(dtype)).to(state[name].dtype) for name in state}
    with pytest.raises(RuntimeError, match="bits were averaged with others"):
        model.load_state_dict(mixed)


def test_exact_copies_through_a_state_dict_are_taken() -> None:
    model = searched()
    averaged = copy.deepcopy(model)
    set_remaining(model, 0.1)
    for edges in searched_edges(model).values():
        edges.remove_unselected()
    with torch.no_grad():
        for average, now in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
            average.copy_(now if not average.is_floating_point() else 0.9 * average + 0.1 * now)
    check_equal(model.eval(), averaged.eval())


def test_older_state_dicts_have_no_checksum() -> None:
    model = searched()
    state = model.state_dict()
    state |= {name: value[:-1] for name, value in state.items() if name.endswith("source")}
    other = searched(remove=False)
    other.load_state_dict(state)
    check_equal(model.eval(), other.eval())


def test_a_checksum_is_the_same_number_wherever_it_is_made() -> None:
    """Of the CPU in NumPy, elsewhere in torch: written out once more in integers without end."""
    buffers = {"one": torch.tensor([[-1, 2], [1 << 30, -(1 << 31)]], dtype=torch.int32), "none": None,
               "two": torch.tensor([5, -7], dtype=torch.int64)}  # fmt: skip
    step, mix, low = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, (1 << 61) - 1

    def signed(value: int) -> int:
        return (value + (1 << 63)) % (1 << 64) - (1 << 63)

    total = 0
    for number, bits in ((0, [-1, 2, 1 << 30, -(1 << 31)]), (2, [5, -7])):
        for place, word in enumerate(bits, start=1):
            mixed = signed((word + place * step + number) * mix)
            total += (mixed ^ (mixed >> 31)) * mix
    wanted = (total & low) | 1 << 61 | 1
    assert int(checksum(buffers, torch.device("cpu"))) == wanted
    elsewhere = {name: None if bits is None else bits.as_subclass(Elsewhere) for name, bits in buffers.items()}
    assert int(checksum(elsewhere, torch.device("cpu"))) == wanted


class Elsewhere(torch.Tensor):
    """No plain tensor, as little as one on another device."""


def test_moving_nowhere_makes_nothing_again() -> None:
    layer = convert(nn.Sequential(nn.Linear(8, 8)), seed=SEED)[0]
    before = layer.edges.signs, layer.edges.source, layer.edges._known
    for same in (layer.to("cpu"), layer.half(), layer.to(memory_format=torch.channels_last)):
        assert all(
            a is b for a, b in zip(before, (same.edges.signs, same.edges.source, same.edges._known), strict=True)
        )
