"""Digits drawn at 32x32: an image is a function of seed, pass and place, whoever asks for it and along with what."""

from functools import cache, partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from supermask.data.base import About, Batch, Data, Described, Part
from supermask.data.digits import Digits, split_digits
from supermask.data.digits32 import DRAWN, Digits32, Drawing, ink
from supermask.kernels.base import philox
from tests.supermask.data.test_base import equal

CPU = torch.device("cpu")
COLUMNS = 1 + len(DRAWN)
COUNT = 200


@cache
def drawing(seed: int = 0) -> Drawing:
    pixels, _, labels, _ = split_digits()
    return Drawing(pixels, labels, seed=seed, device=CPU)


def passed(batch: int = 16, seed: int = 0, **part: int) -> list[Batch]:
    data = Digits32(batch=batch, images_per_epoch=COUNT)
    return list(data.open(seed=seed, device=CPU).train(Part(**part)))


def joined(batches: list[Batch]) -> Batch:
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_it_is_what_it_says() -> None:
    data: Data = Digits32()
    assert isinstance(data, Described)
    assert data.about() == About(classes=10, train=50_000, shape=(3, 32, 32))
    loaded = data.open(seed=0, device=CPU)
    assert (data.batch, loaded.classes, loaded.steps) == (128, 10, 390)
    x, y = next(loaded.train(Part(start=389)))
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((128, 3, 32, 32), torch.float32, (128,), torch.int64)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert bool(torch.isfinite(x).all())
    assert list(loaded.train(Part(start=390))) == []
    with pytest.raises(ValueError, match="start=391: an epoch has 390 batches"):
        loaded.train(Part(start=391))


@pytest.mark.parametrize("count", [0, -1, 10_000_001])
def test_a_number_of_images_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"images_per_epoch={count}: expected 1 to 10,000,000"):
        Digits32(images_per_epoch=count)


@pytest.mark.parametrize("batch", [0, -1, 41])
def test_a_batch_size_that_does_not_fit_is_refused(batch: int) -> None:
    with pytest.raises(ValueError, match=f"batch={batch}: expected 1 to 40, the number of training examples"):
        Digits32(batch=batch, images_per_epoch=40).open(seed=0, device=CPU)


@given(rows=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=40), epoch=st.integers(0, 3))
def test_an_image_is_the_same_in_any_company(rows: list[int], epoch: int) -> None:
    draws = drawing().draws(epoch, COUNT)
    images, labels = drawing()(draws)
    some, named = drawing()(draws[rows])
    assert torch.equal(some, images[rows])
    assert torch.equal(named, labels[rows])


@given(batch=st.integers(1, 70), start=st.integers(0, 2), ranks=st.integers(1, 4), epoch=st.integers(0, 2))
def test_batch_size_resumption_and_processes_change_no_image(batch: int, start: int, ranks: int, epoch: int) -> None:
    ranks = min(ranks, batch)
    whole, labels = joined(passed(1, epoch=epoch))
    pieces = zip(
        *(passed(batch, epoch=epoch, start=start, rank=rank, ranks=ranks) for rank in range(ranks)), strict=True
    )
    x, y = joined([joined(list(piece)) for piece in pieces])
    assert len(y) == (COUNT // batch - start) * batch
    assert torch.equal(x, whole[start * batch : start * batch + len(y)])
    assert torch.equal(y, labels[start * batch : start * batch + len(y)])


def test_many_batches_made_at_once_are_those_made_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = passed(16, epoch=1, start=3)
    together = Drawing(*split_digits()[::2], seed=0, device=CPU)
    monkeypatch.setattr(together, "device", torch.device("meta"))  # only "cpu" makes them one by one
    monkeypatch.setattr(together, "draws", lambda epoch, count: drawing().draws(epoch, count))
    made = list(together.batches(Part(epoch=1, start=3), batch=16, steps=COUNT // 16, count=COUNT))
    assert equal(made, one_by_one)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x, _ in made)


def test_threads_change_no_image() -> None:
    draws = drawing().draws(0, 64)
    one = drawing()(draws)[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(drawing()(draws)[0], one)
    finally:
        torch.set_num_threads(threads)


def test_epochs_and_seeds_differ_in_every_image() -> None:
    base, _ = joined(passed())
    for other in (passed(epoch=1), passed(seed=1)):
        assert not (base == joined(other)[0]).flatten(1).all(1).any()
    assert len(base.flatten(1).unique(dim=0)) == len(base)


@given(seed=st.sampled_from([0, 1, 2**32, 2**64 - 1]), epoch=st.sampled_from([0, 1, 99, 2**31 - 1]))
def test_draws_are_the_generators_integers_on_every_path(seed: int, epoch: int) -> None:
    (words,) = philox.draws(seed, epoch, range(40), COLUMNS, purpose=7)
    assert torch.equal((drawing(seed).draws(epoch, 40) * 2.0**24).to(torch.int32), words)
    place = (philox.as_int64(seed), epoch, philox.stream(7))
    assert torch.equal(philox.uniform_triton(*place, 0.0, 1.0, 40, COLUMNS, CPU) * 2.0**24, words.float())


def test_what_is_drawn_lies_where_it_should_and_reaches_its_ends() -> None:
    made = drawing()
    values = made.low + made.width * made.draws(0, 50_000)
    for column, (low, high) in enumerate([(0, 1000), *DRAWN.values()]):
        drawn = values[:, column]
        assert low <= float(drawn.min()) < low + 0.001 * (high - low)
        assert high - 0.001 * (high - low) < float(drawn.max()) <= high
    digits = values[:, 0].to(torch.int64)
    assert torch.equal(digits.unique(), torch.arange(1000))
    top = made.low + made.width * (1 - 2.0**-24)
    assert top[:2].to(torch.int64).tolist() == [999, (1 << 16) - 1], "the last digit and noise field, and none beyond"


def test_labels_are_those_of_the_digits_that_are_drawn() -> None:
    made = drawing()
    draws = made.draws(0, COUNT)
    still = draws.clone()
    # Half of each range is no shift, turn or shear; the light is on, the ground level and the noise nil.
    still[:, 2:] = torch.tensor([0.75, 0.5, 0.5, 0.5, 0.2 / 0.45, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0])
    images, labels = made(still)
    source = (draws[:, 0] * 1000).to(torch.int64)
    assert torch.equal(labels, made.labels[source])
    assert torch.equal(labels, made(draws)[1])
    expected = made.ink[source].expand(-1, 3, -1, -1)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)


def test_training_and_testing_share_no_digit_and_are_those_of_digits() -> None:
    train, test, train_labels, test_labels = split_digits()
    pixels, labels = load_digits(return_X_y=True)
    numbered = torch.from_numpy(pixels)
    where = {tuple(row.tolist()): number for number, row in enumerate(numbered)}
    assert len(where) == 1797, "no two digits are alike"
    sides = [[where[tuple(row.tolist())] for row in side] for side in (train, test)]
    assert sorted(sides[0] + sides[1]) == list(range(1797))
    assert torch.equal(torch.cat([train_labels, test_labels]), torch.from_numpy(labels)[sides[0] + sides[1]])
    ((x, y),) = Digits().open(seed=0, device=CPU).test(Part())
    assert torch.equal((x + 1) * 8, test.float())
    assert torch.equal(y, test_labels)
    assert torch.equal(drawing().ink, ink(train)), "a pass has nothing else to draw"
    assert torch.equal(drawing().labels, train_labels)


@pytest.mark.parametrize("ranks", [1, 3])
def test_images_for_testing_are_the_digits_themselves_in_every_pass(ranks: int) -> None:
    for seed, epoch in ((0, 0), (1, 5)):
        loaded = Digits32(images_per_epoch=COUNT).open(seed=seed, device=CPU)
        parts = [Part(rank=rank, ranks=ranks, epoch=epoch) for rank in range(ranks)]
        x, y = joined([batch for part in parts for batch in loaded.test(part)])
        _, pixels, _, labels = split_digits()
        assert torch.equal(x, ink(pixels).expand(-1, 3, -1, -1))
        assert torch.equal(y, labels)
        assert (float(x.min()), float(x.max())) == (0, 1)


@pytest.mark.parametrize(("count", "batches"), [(2500, [1000, 1000]), (COUNT, [COUNT]), (12_000, [1000] * 10)])
def test_statistics_are_of_the_same_drawn_images_in_every_pass(count: int, batches: list[int]) -> None:
    loaded = Digits32(images_per_epoch=count, batch=10).open(seed=0, device=CPU)
    first = list(loaded.calibrate(Part()))
    assert [len(y) for _, y in first] == batches
    assert equal(list(loaded.calibrate(Part(epoch=3, start=2))), first)
    images, labels = drawing()(drawing().draws(0, count)[: sum(batches)])
    assert torch.equal(joined(first)[0], images)
    assert torch.equal(joined(first)[1], labels)
    shares = [list(loaded.calibrate(Part(rank=rank, ranks=2))) for rank in range(2)]
    assert torch.equal(torch.cat([shares[0][0][1], shares[1][0][1]]), first[0][1])


def test_the_global_random_state_neither_counts_nor_changes() -> None:
    passes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        passes.append(passed(epoch=1))
        assert torch.equal(torch.get_rng_state(), before)
    assert equal(*passes)


def test_nothing_waits_for_the_device() -> None:
    """On tensors without values whatever asks for one fails; the whole is one graph, as capture needs it."""
    draws = drawing().draws(0, 32)
    traced = make_fx(partial(Drawing.__call__, drawing()), tracing_mode="fake", _allow_non_fake_inputs=True)(draws)
    assert equal([traced(draws)], [drawing()(draws)])
    with FakeTensorMode() as fake:
        fake.allow_non_fake_inputs = True
        images, labels = drawing()(fake.from_tensor(draws))
    assert isinstance(images, Tensor)
    assert (images.shape, labels.shape) == ((32, 3, 32, 32), (32,))


def test_it_is_one_graph_for_the_compiler() -> None:
    draws = drawing().draws(0, 32)
    compiled = torch.compile(drawing().__call__, backend="aot_eager", fullgraph=True)
    assert equal([compiled(draws)], [drawing()(draws)])
