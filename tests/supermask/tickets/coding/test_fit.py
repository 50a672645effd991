"""Levels are found where masks have structure, pay for themselves, and are not found where they have none."""

import numpy as np
import pytest
import torch

from supermask.edges.draws import initial_scores
from supermask.kernels.base.bits import pack
from supermask.tickets.coding.fit import Plane, find_draws, fit
from supermask.tickets.coding.levels import Draws, Grid
from supermask.tickets.coding.planes import decode, encode_ans

GRID = Grid(shape=(64, 32, 3, 3), seed=11, layer=2)


def plane(
    scores: torch.Tensor, remaining: float, *, absolute: bool = True, within: torch.Tensor | None = None
) -> Plane:
    """The mask of the highest scores [rows, cols]."""
    ranked = scores.abs() if absolute else scores
    if within is not None:
        ranked = torch.where(within, ranked, -torch.inf)
    kept = round(remaining * ranked.numel())
    chosen = torch.zeros(ranked.numel(), dtype=torch.bool)
    chosen[ranked.flatten().argsort(descending=True)[:kept]] = True
    return Plane(grid=GRID, words=pack(chosen.view(ranked.shape)), within=None if within is None else pack(within))


def drawn(generation: int = 0) -> torch.Tensor:
    place = GRID.seed, GRID.layer, (GRID.rows, GRID.cols)
    return initial_scores("kaiming_uniform", *place, generation=generation, device=torch.device("cpu"))


def noise(scale: float, seed: int = 0) -> torch.Tensor:
    shape = GRID.rows, GRID.cols
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sizes(given: Plane, draws: Draws | None) -> tuple[int, int]:
    """Bytes at one density, and as fitted; what is fitted comes back to the bit."""
    kept = int(np.bitwise_count(given.words.numpy().view(np.uint32)).sum())
    count = GRID.rows * GRID.cols
    if given.within is not None:
        count = int(np.bitwise_count(given.within.numpy().view(np.uint32)).sum())
    found = fit(given, draws)
    flat, fitted = (
        encode_ans(given.words, GRID, given.within, kept=kept, count=count, levels=levels) for levels in (None, found)
    )
    assert torch.equal(decode(fitted, "ans", GRID, given.within, kept=kept, count=count), given.words)
    return len(flat), len(fitted)


@pytest.mark.parametrize("generation", [0, 7])
@pytest.mark.parametrize("absolute", [True, False])
def test_masks_of_initial_scores_take_few_bytes(generation: int, absolute: bool) -> None:
    """Their draw is found from the mask, and the mask is all but known then."""
    given = plane(drawn(generation), 0.4, absolute=absolute)
    draws = find_draws([given])
    assert draws == Draws(absolute=absolute, generation=generation)
    flat, fitted = sizes(given, draws)
    assert fitted < 0.05 * flat


def test_the_more_a_search_moves_the_scores_the_more_bytes_it_takes() -> None:
    found = [
        sizes(plane(drawn() + noise(scale), 0.3), Draws(absolute=True, generation=0)) for scale in (0.005, 0.02, 0.1)
    ]
    assert found[0][1] < found[1][1] < found[2][1] <= found[2][0]


@pytest.mark.parametrize("axis", ["row", "channel", "position"])
def test_density_by_place(axis: str) -> None:
    """What makes some rows, channels or positions denser is found without any draw."""
    factor = {"row": (64, 1, 1), "channel": (1, 32, 1), "position": (1, 1, 9)}[axis]
    spread = torch.linspace(-1.5, 1.5, max(factor)).exp().view(factor)
    scores = noise(1).view(64, 32, 9) * spread
    flat, fitted = sizes(plane(scores.view(64, 288), 0.2), None)
    assert fitted < 0.95 * flat


def test_random_masks_have_no_levels() -> None:
    for remaining in (0.03, 0.3, 0.5):
        given = plane(noise(1, seed=3), remaining)
        assert find_draws([given]) is None
        assert fit(given, None) is None
        assert fit(given, Draws(absolute=True, generation=0)) is None


def test_planes_within_planes() -> None:
    """An outer coat follows the same scores; flips do not."""
    within = drawn().abs() > 0.02
    given = plane(drawn(), 0.2, within=within)
    flat, fitted = sizes(given, Draws(absolute=True, generation=0))
    assert fitted < 0.1 * flat
    flips = Plane(grid=GRID, words=pack(within & (noise(1, seed=5) > 0)), within=pack(within))
    assert fit(flips, Draws(absolute=True, generation=0)) is None


def test_one_edge_and_one_row() -> None:
    for shape in [(1, 1), (1, 200), (200, 1), (5,)]:
        grid = Grid(shape=shape, seed=1, layer=0)
        chosen = torch.zeros(grid.rows, grid.cols, dtype=torch.bool)
        chosen[0, 0] = True
        given = Plane(grid=grid, words=pack(chosen), within=None)
        find_draws([given])
        fit(given, Draws(absolute=False, generation=0))
