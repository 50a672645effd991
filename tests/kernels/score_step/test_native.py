"""Steps through the C extension, on layers of many chunks."""

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.theta import Theta
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from supermask.kernels.select.op import select
from tests.kernels.cases import theta_of
from tests.kernels.native_cases import COUNTS, KINDS, SHAPES, on_both, scores_like
from tests.kernels.paths import pack_plain, path, random_mask, random_reals, same


@given(
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3),
    kind=KINDS,
    source=st.sampled_from(["signs", "seed", "base"]),
    rate=st.sampled_from([1e-4, 0.03, 0.3, 0.97]),
    absolute=st.booleans(),
    pruned=st.booleans(),
    jump=st.sampled_from([0.0, 1e-4, 1e-2, 10.0]),
    momentum=st.sampled_from([0.0, 0.9]),
    count=COUNTS,
    data=st.integers(0, 2**31),
)
def test_score_steps(
    shapes: Sequence[tuple[int, ...]], kind: str, source: str, rate: float, absolute: bool, pruned: bool, jump: float,
    momentum: float, count: int, data: int,
) -> None:  # fmt: skip
    """Three steps with one bracket: scores and momenta as the PyTorch path has them, thresholds as a cold selection."""
    places = [(shape[0], torch.Size(shape[1:]).numel()) for shape in shapes]
    thetas: list[Theta] = [theta_of(*place, source, data=data) for place in places]
    survivors = [pack_plain(random_mask(*place, 0.6, data)) if pruned else None for place in places]
    kept = torch.tensor([max(1, round(rate * rows * cols)) for rows, cols in places])

    def run() -> list[Tensor]:
        scores = [scores_like(shape, kind, data + i) for i, shape in enumerate(shapes)]
        momenta = [torch.full_like(s, -0.0) if momentum else None for s in scores]
        brackets = torch.tensor([NO_BRACKET] * len(scores), dtype=torch.int32)
        found: list[Tensor] = []
        for step in range(3):
            grads = [jump * random_reals(shape, data + 100 * step + i) for i, shape in enumerate(shapes)]
            settings: dict[str, Any] = {"lr": 1.0, "momentum": momentum, "weight_decay": 1e-3, "nesterov": False}
            tau, last = score_step(
                scores, grads, momenta, survivors, thetas, kept, brackets, **settings, absolute=absolute
            )
            found += [tau, last, *(s.clone() for s in scores), *(v.clone() for v in momenta if v is not None)]
        return found

    for one, other in zip(*on_both(run, count), strict=True):
        assert same(one, other)


def test_a_bracket_saves_reading_and_never_lies() -> None:
    """Whatever two keys the caller gives, the threshold is that of the scores."""
    scores = random_reals((300, 300), 1)
    theta = theta_of(300, 300, "signs")
    kept = torch.tensor([27_000])
    for low, high in [(0, -1), (1, 0), (0, 0), (2**31 - 1, 2**31 - 1), (-(2**31), 2**31 - 1), (-(2**31), 5), (5, -5)]:
        given_scores = [scores.clone()]
        brackets = torch.tensor([[low, high]], dtype=torch.int32)
        settings: dict[str, Any] = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False}
        for step in range(3):
            grad = [random_reals((300, 300), 5 + step)]
            with path("native"):
                found = score_step(
                    given_scores, grad, [None], [None], [theta], kept, brackets, **settings, absolute=True
                )
            with path("torch"):
                expected = select(given_scores, kept, [None])
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])
            if step and native.usable():  # the PyTorch path leaves brackets alone
                low_key, high_key = brackets[0].tolist()
                assert low_key <= int(found[0]) <= high_key
                inside = scores.numel() // 4
                keys = given_scores[0].abs().view(torch.int32)
                assert int(((keys >= low_key) & (keys <= high_key)).sum()) < inside
