"""Shares of the edges that a network keeps: totals, bounds, the published rules, and what is refused."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from supermask.edges.draws import kept_count
from supermask.edges.in_model import searched_edges
from supermask.networks.allocation import UNIFORM, Allocator, Shape, apportion
from supermask.networks.convert import convert
from supermask.networks.rates import set_remaining

sizes = st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple)


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Shape]:
    found = {}
    for number, weight in enumerate(draw(st.lists(sizes, min_size=1, max_size=7))):
        room = draw(st.integers(1, math.prod(weight)))
        found[f"layer{number}"] = Shape(weight=weight, outputs=weight[0], room=room)
    return found


@st.composite
def problems(draw: st.DrawFn) -> tuple[int, list[Fraction], list[int], list[int]]:
    count = draw(st.integers(1, 8))
    most = draw(st.lists(st.integers(1, 50), min_size=count, max_size=count))
    least = [draw(st.integers(0, high)) for high in most]
    shares = draw(st.lists(st.fractions(Fraction(1, 100), 100), min_size=count, max_size=count))
    return draw(st.integers(sum(least), sum(most))), shares, least, most


@given(problems())
def test_whole_numbers_add_up_within_their_bounds(problem: tuple[int, list[Fraction], list[int], list[int]]) -> None:
    total, shares, least, most = problem
    found = apportion(*problem)
    assert sum(found) == total
    assert all(low <= one <= high for low, one, high in zip(least, found, most, strict=True))
    # Each is within one of one multiple of its share, or at the bound that holds it.
    low, high = Fraction(0), Fraction(10**9)
    for share, one, least_one, most_one in zip(shares, found, least, most, strict=True):
        if one > least_one:
            low = max(low, (one - 1) / share)
        if one < most_one:
            high = min(high, (one + 1) / share)
    assert low <= high


def test_largest_remainders_get_one_more_and_the_first_of_equals() -> None:
    assert apportion(10, [Fraction(n) for n in (33, 33, 34)], [0, 0, 0], [99, 99, 99]) == [3, 3, 4]
    assert apportion(2, [Fraction(1)] * 3, [0, 0, 0], [9, 9, 9]) == [1, 1, 0]
    assert apportion(10, [Fraction(1)] * 3, [0, 0, 7], [9, 9, 9]) == [2, 1, 7]
    assert apportion(10, [Fraction(8), Fraction(1), Fraction(1)], [0, 0, 0], [4, 9, 9]) == [4, 3, 3]


@given(networks(), st.floats(0.01, 1.0), st.sampled_from(["uniform", "erk", "equal"]), st.floats(0, 2))
def test_the_total_is_exact_and_no_layer_is_empty(
    layers: dict[str, Shape], remaining: float, kind: Any, floor: float
) -> None:
    allocator = Allocator(kind=kind, floor=floor)
    total = kept_count(remaining, sum(shape.edges for shape in layers.values()))
    least = sum(min(shape.room, max(1, math.ceil(floor * shape.outputs))) for shape in layers.values())
    if allocator.by_layer:
        assert allocator.counts(layers, remaining) == {
            name: kept_count(remaining, shape.edges) for name, shape in layers.items()
        }
    elif least <= total <= sum(shape.room for shape in layers.values()):
        found = allocator.counts(layers, remaining)
        assert sum(found.values()) == total
        assert all(1 <= found[name] <= shape.room for name, shape in layers.items())
        assert all(found[n] >= min(s.room, math.ceil(floor * s.outputs)) for n, s in layers.items())
    else:
        with pytest.raises(ValueError, match=f"keeps {total:,} edges: .* need {least:,}, and "):
            allocator.counts(layers, remaining)


@given(networks(), st.floats(0.3, 1.0), st.floats(0.3, 1.0), st.sampled_from(["erk", "equal"]))
def test_a_lower_rate_finds_room_in_what_a_higher_one_kept(
    layers: dict[str, Shape], one: float, other: float, kind: Any
) -> None:
    """Hard pruning: the second allocation has the first for its room."""
    layers = {name: Shape(weight=s.weight, outputs=s.outputs, room=s.edges) for name, s in layers.items()}
    allocator = Allocator(kind=kind)
    edges = sum(shape.edges for shape in layers.values())
    if kept_count(min(one, other), edges) < len(layers):
        return
    first = allocator.counts(layers, max(one, other))
    left = {name: Shape(weight=s.weight, outputs=s.outputs, room=first[name]) for name, s in layers.items()}
    second = allocator.counts(left, min(one, other))
    assert sum(second.values()) == kept_count(min(one, other), edges)
    assert all(second[name] <= first[name] for name in layers)


def shapes(*weights: tuple[int, ...]) -> dict[str, Shape]:
    return {f"l{n}": Shape(weight=w, outputs=w[0], room=math.prod(w)) for n, w in enumerate(weights)}


def test_erk_is_sum_over_product_and_full_layers_stay_full() -> None:
    layers = shapes((100, 100), (10, 100), (20, 20, 3, 3))
    found = Allocator(kind="erk").counts(layers, 0.1)
    # 200, 110 and 46 of 356 parts of the 1,460 edges.
    assert list(found.values()) == [820, 451, 189]
    found = Allocator(kind="erk").counts(shapes((100, 100), (2, 4)), 0.1)
    assert list(found.values()) == [1001 - 8, 8]


def test_equal_counts_are_capped_and_shared_again() -> None:
    assert list(Allocator(kind="equal").counts(shapes((10, 10), (10, 10), (2, 3)), 0.5).values()) == [49, 48, 6]


def test_whole_layers_and_floors_are_within_the_total() -> None:
    layers = shapes((50, 20), (40, 50), (10, 40))
    found = Allocator(whole=("first", "last")).counts(layers, 0.5)
    assert list(found.values()) == [1000, 300, 400]
    assert list(Allocator(whole=("l[02]",)).counts(layers, 0.5).values()) == [1000, 300, 400]
    assert list(Allocator(floor=3.0).counts(layers, 0.1).values()) == [150, 158, 32]


@dataclass(frozen=True, kw_only=True, repr=False)
class FirstTwice(Allocator):
    def shares(self, layers: Mapping[str, Shape]) -> Sequence[float]:
        return [2.0, *[1.0] * (len(layers) - 1)]


def test_one_of_the_users_own() -> None:
    assert list(FirstTwice().counts(shapes((10, 10), (10, 10), (10, 10)), 0.2).values()) == [30, 15, 15]
    assert not FirstTwice().by_layer


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "erdos"}, "kind='erdos'"),
        ({"floor": -1.0}, "floor=-1.0: expected edges an output"),
        ({"floor": math.inf}, "floor=inf"),
        ({"whole": "last"}, r"whole='last': expected several names, such as \('last',\)"),
    ],
)
def test_bad_settings_are_refused(changes: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        Allocator(**changes)


def test_what_cannot_be_met_is_refused_with_both_numbers() -> None:
    layers = shapes((10, 10), (10, 10))
    with pytest.raises(ValueError, match=r"keeps 40 edges: whole=\('first',\) and floor=0.0 need 101"):
        Allocator(whole=("first",)).counts(layers, 0.2)
    with pytest.raises(ValueError, match=r"no layer is called 'head'; the layers are l0, l1"):
        Allocator(whole=("head",)).counts(layers, 0.2)
    with pytest.raises(ValueError, match=r"Broken.shares gave \[1, 0\]: expected 2 finite numbers above 0"):
        Broken().counts(layers, 0.2)


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, float, np.float64, np.float32, np.float16, Fraction])
def test_shares_are_any_real_numbers(kind: Any) -> None:
    class Given(Allocator):
        def shares(self, layers: Mapping[str, Shape]) -> Sequence[float]:
            return [kind(2), kind(1), kind(1)]

    found = list(Given().counts(shapes((10, 10), (10, 10), (10, 10)), 0.2).values())
    assert found == [30, 15, 15]
    assert {type(count) for count in found} == {int}


@pytest.mark.parametrize("share", ["1", 1j, None])
def test_shares_that_are_no_numbers_are_named(share: Any) -> None:
    class Given(Allocator):
        def shares(self, layers: Mapping[str, Shape]) -> Sequence[float]:
            return [1, share]

    with pytest.raises(
        TypeError, match=rf"Given.shares gave \[1, {share!r}\]: expected 2 finite numbers".replace("(", r"\(")
    ):
        Given().counts(shapes((10, 10), (10, 10)), 0.2)


@pytest.mark.parametrize("name", ["counts", "share", "shares_", "proportions"])
def test_a_function_that_nothing_asks_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine.{name} may be meant to say what each layer gets, .* that is `shares`"):
        type("Mine", (Allocator,), {name: lambda self, layers: [1] * len(layers)})
    type("Mine", (FirstTwice,), {"counts": lambda self, *given, **more: {}, "_shared": lambda self: 1})


class Broken(Allocator):
    def shares(self, layers: Mapping[str, Shape]) -> Sequence[float]:
        return [1, 0]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 20, bias=False), nn.ReLU(), nn.Linear(20, 10, bias=False), nn.Linear(10, 4))


def kept(model: nn.Module) -> list[int]:
    return [int(edges.kept[0]) for edges in searched_edges(model).values()]


def test_a_network_is_converted_and_set_so() -> None:
    erk = Allocator(kind="erk", whole=("last",))
    model = convert(net(), seed=1, remaining=0.3, allocate=erk)
    assert kept(model) == [133, 79, 40]
    assert sum(kept(model)) == kept_count(0.3, 840)
    set_remaining(model, 0.2, erk)
    assert kept(model) == [80, 48, 40]
    set_remaining(model, 0.2)
    assert kept(model) == [120, 40, 8]
    assert UNIFORM.by_layer


def test_pinned_layers_are_outside_of_the_total() -> None:
    model = convert(net(), seed=1, remaining=0.3, overrides={"0": 0.5}, allocate=Allocator(kind="equal"))
    assert kept(model) == [300, 36, 36]


def test_layers_that_are_whole_are_those_of_the_network() -> None:
    """As those of overrides are: a pinned layer is still the first, and has its name."""
    for name in ("first", "0"):
        with pytest.raises(ValueError, match=rf"'{name}' is the layer '0', which overrides pin at the rate 0.5"):
            convert(net(), seed=1, remaining=0.9, overrides={"first": 0.5}, allocate=Allocator(whole=(name,)))
    with pytest.raises(ValueError, match=r"is the layer '3', which overrides pin at the rate 0.25"):
        convert(net(), seed=1, overrides={"*": 0.25}, allocate=Allocator(whole=("last",)))
    with pytest.raises(ValueError, match=r"no layer is called 'head'; the layers are 0, 2, 3"):
        convert(net(), seed=1, overrides={"0": 0.5}, allocate=Allocator(whole=("head",)))
    both = convert(net(), seed=1, remaining=0.5, overrides={"0": 1.0}, allocate=Allocator(whole=("0", "last")))
    assert kept(both) == [600, 80, 40]
    every = convert(net(), seed=1, overrides={"*": 1.0}, allocate=Allocator(whole=("first",)))
    assert kept(every) == [600, 200, 40]


def test_survivors_are_all_the_room_there_is() -> None:
    model = convert(net(), seed=1, remaining=0.5)
    for edges in searched_edges(model).values():
        edges.remove_unselected()
    set_remaining(model, 0.3, Allocator(kind="equal"))
    assert kept(model) == [132, 100, 20]
    before = kept(model)
    with pytest.raises(ValueError, match=r"keeps 504 edges: .* and 420 are there"):
        set_remaining(model, 0.6, Allocator(kind="equal"))
    assert kept(model) == before
