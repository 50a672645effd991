"""Batches from memory: what a part of an epoch holds, whoever asks for it and whatever ran before."""

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from supermask.data.base import About, Batch, Described, Loaded, Part, generator_for, in_memory, order_of
from supermask.data.digits import Digits

CPU = torch.device("cpu")


class Noise:
    """An augmentation that shows its draws: it adds them."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, generator=generator)

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        return images + drawn[:, None]


def numbered(count: int = 53, batch: int = 8, seed: int = 0, **options: object) -> Loaded:
    """Inputs and labels are the example's number; 11 for testing, numbered from 1000."""
    x, y = torch.arange(count, dtype=torch.float64)[:, None], torch.arange(count)
    return in_memory(x, y, x[:11] + 1000, y[:11] + 1000, batch=batch, seed=seed, **options)  # type: ignore[arg-type]


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


@given(count=st.integers(0, 40), ranks=st.integers(1, 9))
def test_shares_are_those_of_tensor_split(count: int, ranks: int) -> None:
    whole = torch.arange(count)
    shares = [Part(rank=rank, ranks=ranks).share(whole) for rank in range(ranks)]
    assert all(torch.equal(a, b) for a, b in zip(shares, whole.tensor_split(ranks), strict=True))
    assert [Part(rank=rank, ranks=ranks).share(whole.tolist()) for rank in range(ranks)] == [
        share.tolist() for share in shares
    ]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"epoch": -1}, "epoch=-1"),
        ({"start": -2}, "start=-2"),
        ({"rank": 2, "ranks": 2}, "rank=2 of ranks=2"),
        ({"rank": -1, "ranks": 2}, "rank=-1"),
        ({"ranks": 0}, "ranks=0"),
    ],
)
def test_an_impossible_part_is_refused(bad: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Part(**bad)


@given(seed=st.sampled_from([0, 1, 2**64 - 1]), epoch=st.integers(0, 5), start=st.integers(0, 6))
def test_an_epoch_begun_in_its_middle_goes_on_the_same(seed: int, epoch: int, start: int) -> None:
    loaded = numbered(seed=seed, augment=Noise())
    whole = list(loaded.train(Part(epoch=epoch)))
    assert len(whole) == loaded.steps == 6
    assert equal(list(loaded.train(Part(epoch=epoch, start=start))), whole[start:])


@given(batch=st.integers(1, 53), ranks=st.integers(1, 5), start=st.integers(0, 1), epoch=st.integers(0, 3))
def test_the_pieces_of_all_ranks_are_the_batch_of_one(batch: int, ranks: int, start: int, epoch: int) -> None:
    ranks = min(ranks, batch)
    loaded = numbered(batch=batch, augment=Noise())
    parts = [Part(epoch=epoch, start=start, rank=rank, ranks=ranks) for rank in range(ranks)]
    pieces = zip(*(loaded.train(part) for part in parts), strict=True)
    joined = [
        (torch.cat([x for x, _ in piece]), torch.cat([y for _, y in piece])) for piece in (list(p) for p in pieces)
    ]
    assert equal(joined, list(loaded.train(Part(epoch=epoch, start=start))))


def test_an_epoch_holds_every_example_at_most_once_with_its_own_label() -> None:
    batches = list(numbered().train(Part(epoch=2)))
    labels = torch.cat([y for _, y in batches]).tolist()
    assert len(labels) == len(set(labels)) == 48
    assert labels != sorted(labels)
    assert all(torch.equal(x[:, 0].long(), y) for x, y in batches)


def test_epochs_and_seeds_differ_in_order_and_in_augmentation() -> None:
    def flat(seed: int, epoch: int) -> Tensor:
        return torch.cat([x for x, _ in numbered(seed=seed, augment=Noise()).train(Part(epoch=epoch))])[:, 0]

    base = flat(0, 0)
    for other in (flat(0, 1), flat(1, 0)):
        assert not torch.equal(base.floor(), other.floor())
        assert not torch.equal(base.frac(), other.frac())
    noise = base.frac().view(6, 8)
    assert len(noise.unique()) == 48, "each image and each batch has draws of its own"


def test_random_numbers_belong_to_their_place() -> None:
    places = [(seed, epoch, step) for seed in (0, 1, 2**32, 2**63) for epoch in range(4) for step in range(12)]
    first = {float(torch.rand((), generator=generator_for(*place), dtype=torch.float64)) for place in places}
    assert len(first) == len(places)
    assert torch.equal(torch.rand(5, generator=generator_for(3, 1, 2)), torch.rand(5, generator=generator_for(3, 1, 2)))


def test_the_global_random_state_neither_counts_nor_changes() -> None:
    loaded = numbered(augment=Noise())
    passes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        passes.append([*loaded.train(Part(epoch=1)), *loaded.test(Part()), *loaded.calibrate(Part())])
        assert torch.equal(torch.get_rng_state(), before)
    assert equal(*passes)


def test_passes_may_overlap() -> None:
    loaded = numbered(augment=Noise())
    alone = list(loaded.train(Part(epoch=3)))
    pass_3 = loaded.train(Part(epoch=3))
    started = list(islice(pass_3, 2))
    list(loaded.train(Part(epoch=4)))
    assert equal(started + list(pass_3), alone)


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_evaluation_covers_the_whole_set_once_whatever_epoch_and_start(ranks: int) -> None:
    loaded = numbered(at_once=4)
    parts = [Part(rank=rank, ranks=ranks, epoch=7, start=3) for rank in range(ranks)]
    test = [batch for part in parts for batch in loaded.test(part)]
    assert sorted(torch.cat([y for _, y in test]).tolist()) == list(range(1000, 1011))
    assert all(torch.equal(x[:, 0].long(), y) and len(y) for x, y in test), "an empty piece is left out"
    if ranks > 4:  # batch norms need every process in every batch
        with pytest.raises(ValueError, match="batch=4: 5 processes share it"):
            loaded.calibrate(parts[0])
        return
    calibrate = torch.cat([y for part in parts for _, y in loaded.calibrate(part)])
    assert sorted(calibrate.tolist()) == list(range(52)), "all but the incomplete last batch"


def test_evaluation_is_not_augmented_but_prepared() -> None:
    loaded = numbered(augment=Noise(), prepare=lambda x: -x, at_once=1000)
    ((x, y),) = loaded.calibrate(Part())
    assert torch.equal(x[:, 0], -torch.arange(53.0).double())
    assert torch.equal(y, torch.arange(53))
    ((x, _),) = loaded.test(Part())
    assert torch.equal(x[:, 0], -torch.arange(1000.0, 1011).double())
    assert all(bool((x < 0).all()) for x, _ in loaded.train(Part(epoch=1, start=1)))


def test_what_an_epoch_does_not_have_is_refused_when_asked_for() -> None:
    loaded = numbered()
    assert list(loaded.train(Part(start=6))) == []
    with pytest.raises(ValueError, match="start=7: an epoch has 6 batches"):
        loaded.train(Part(start=7))
    with pytest.raises(ValueError, match="batch=8: 9 processes share it"):
        loaded.train(Part(ranks=9))


@pytest.mark.parametrize("batch", [0, -1, 54])
def test_a_batch_size_that_does_not_fit_is_refused(batch: int) -> None:
    with pytest.raises(ValueError, match=f"batch={batch}: expected 1 to 53"):
        numbered(batch=batch)


def test_the_number_of_classes_can_be_given() -> None:
    assert numbered().classes == 53
    assert numbered(classes=100).classes == 100


def test_orders_are_those_that_published_figures_were_made_with() -> None:
    assert order_of(8, 0, 0).tolist() == torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist()
    assert order_of(8, 3, 2).tolist() == torch.randperm(8, generator=torch.Generator().manual_seed(3_000_011)).tolist()


@pytest.mark.parametrize(("layout", "shape"), [("flat", (64,)), ("image", (1, 8, 8))])
def test_digits_are_what_they_say(layout: str, shape: tuple[int, ...]) -> None:
    data = Digits(batch=50, layout=layout)  # type: ignore[arg-type]
    assert isinstance(data, Described)
    assert data.about() == About(classes=10, train=1000, shape=shape)
    loaded = data.open(seed=0, device=CPU)
    assert (loaded.classes, loaded.steps) == (10, 20)
    x, y = next(loaded.train(Part()))
    assert x.shape == (50, *shape)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    ((x, y),) = loaded.test(Part())
    assert x.shape == (797, *shape)
    assert (float(x.min()), float(x.max())) == (-1, 1)
    assert x.ndim == 2 or x.is_contiguous(memory_format=torch.channels_last)


def test_the_two_layouts_of_digits_hold_the_same_pixels() -> None:
    flat, image = (Digits(layout=layout).open(seed=5, device=CPU) for layout in ("flat", "image"))
    for (x, y), (x_image, y_image) in zip(flat.train(Part(epoch=1)), image.train(Part(epoch=1)), strict=True):
        assert torch.equal(x.view(-1, 1, 8, 8), x_image)
        assert torch.equal(y, y_image)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="layout='wide': expected one of 'flat', 'image'"):
        Digits(layout="wide")  # type: ignore[arg-type]
