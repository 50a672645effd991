"""What a ticket or a state dict would not make again is refused, and nothing else is."""

import io
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from supermask import SupermaskLinear, load, save
from supermask.edges.base import Edges
from supermask.edges.draws import WeightInit
from supermask.edges.packed import PackedEdges
from supermask.edges.searched import SearchedEdges
from supermask.edges.stored import NotStorable, Stored, coat_names
from supermask.kernels.base.bits import pack
from supermask.tickets.errors import TicketError
from supermask.tickets.names import CODINGS, PLANES, VALUES
from tests.fuzz.mutations import resign
from tests.fuzz.seeds import seeds
from tests.places import ROOT

SHAPE = (9, 40)


def searched(**how: Any) -> SearchedEdges:
    return SearchedEdges(SHAPE, seed=4, remaining=0.6, **how)


def packed(*, flips: bool = False, **how: Any) -> PackedEdges:
    bits = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) < 0.5
    place: dict[str, Any] = {"seed": 4, "layer": 0, "weights": "signed_constant", "constant": 0.3}
    return PackedEdges(
        SHAPE, pack(bits), flips=pack(~bits | (bits.cumsum(1) % 3 == 0)) if flips else None, **place | how
    )


def model(edges: Edges) -> nn.Module:
    return nn.Sequential(SupermaskLinear(SHAPE[1], SHAPE[0], edges=edges))


def turn(edges: Edges) -> None:
    """As in users' code: the signs of edges that are not selected, in place."""
    assert edges.signs is not None
    edges.signs ^= ~edges.mask() & 0x0F0F0F0F


def turn_data(edges: Edges) -> None:
    """In a way that torch does not count."""
    assert edges.signs is not None
    edges.signs.data[2, 1] ^= 1 << 5


def replace(edges: Edges) -> None:
    assert edges.signs is not None
    edges.signs = edges.signs.clone()
    edges.signs[0, 0] ^= 1


def scale(edges: Edges) -> None:
    edges.constant.mul_(1.5)


def next_float(edges: Edges) -> None:
    edges.constant.copy_(torch.nextafter(edges.constant, torch.tensor(torch.inf)))


MADE = r"constant 0\.\d+: these edges make theirs 0\.\d+"
EDGES: dict[str, Callable[[], Edges]] = {
    "searched": searched,
    "scaled": lambda: searched(weights="scaled_signed_constant"),
    "unsigned": lambda: searched(weights="unsigned_constant"),
    "packed": packed,
    "packed, flips": lambda: packed(flips=True),
    "packed, materialised": lambda: packed(making="materialised"),
}


@pytest.mark.parametrize("change", [turn, turn_data, replace, scale, next_float])
@pytest.mark.parametrize("kind", EDGES)
def test_signs_and_constants_written_by_hand(kind: str, change: Callable[[Edges], None]) -> None:
    edges = EDGES[kind]()
    network, file = model(edges), io.BytesIO()
    state = network.state_dict()
    with torch.no_grad():
        change(edges)
    said = MADE if change in (scale, next_float) else r"\d+ of 360 signs are not those"
    with pytest.raises(TicketError, match=rf"<BytesIO>: layer '0': {said}"):
        save(network, file, architecture=None)
    assert file.getvalue() == b""
    with pytest.raises(NotStorable, match=rf"state dict of '0.edges': {said}"):
        network.state_dict()
    with pytest.raises(NotStorable, match=said):
        edges.stored()
    network.load_state_dict(state)  # which is of the seed's signs, and makes them again
    fresh = EDGES[kind]()
    assert torch.equal(edges(torch.float32), fresh(torch.float32))
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())
    save(network, file, architecture=None)


@pytest.mark.parametrize("kind", EDGES)
def test_edges_as_they_are_made_are_stored(kind: str) -> None:
    """Whatever was done to them that is no writing by hand."""
    edges: Any = EDGES[kind]()
    if isinstance(edges, SearchedEdges):
        edges.remaining = 0.2
        edges.draw_scores(1)
        edges.remove_unselected()
    elif edges.flips is not None:
        edges.flips.bitwise_not_().bitwise_and_(edges.packed)
    edges.to(torch.bfloat16).to_empty(device="meta")
    assert edges.state_dict()
    edges = EDGES[kind]().half()
    stored, state = edges.stored(), edges.state_dict()
    again = PackedEdges.of(stored, SHAPE, seed=4, layer=0, generation=0, weights=edges.weights)
    assert torch.equal(again(torch.float32), edges(torch.float32))
    edges.to_empty(device="meta").to_empty(device="cpu")
    assert edges.state_dict().keys() == state.keys()  # to be filled
    edges.load_state_dict(state)
    assert torch.equal(again(torch.float32), edges(torch.float32))


@pytest.mark.parametrize("weights", get_args(WeightInit))
def test_cached_weights_written_by_hand(weights: WeightInit) -> None:
    edges = packed(weights=weights, making="cached")
    network = model(edges)
    save(network, io.BytesIO(), architecture=None)
    assert edges.weight is not None
    edges.weight.data[3, 7] += 1
    with pytest.raises(TicketError, match="layer '0': its cached weights are not those of its mask"):
        save(network, io.BytesIO(), architecture=None)
    with pytest.raises(NotStorable, match="its cached weights"):
        network.state_dict()


def test_a_mask_that_was_written_to_is_stored_as_it_is() -> None:
    """The mask is what is stored, so that caches follow it."""
    for making in ("auto", "cached", "materialised"):
        edges = packed(making=making, flips=True)
        edges.packed[0] = 0
        file = io.BytesIO()
        save(model(edges), file, architecture=None)
        loaded: Any = load(io.BytesIO(file.getvalue()), model=model(packed()))
        assert torch.equal(loaded[0].edges(torch.float32), edges(torch.float32))


class Silent(SearchedEdges):
    """Edges of a method that does not say what is stored of it."""

    stored = Edges.stored


class Odd(SearchedEdges):
    """Edges that store what they like."""

    more: Stored

    def stored(self) -> Stored:
        found = super().stored()
        return Stored(planes={**found.planes, **self.more.planes}, values={**found.values, **self.more.values})


def test_edges_that_do_not_say_what_is_stored() -> None:
    with pytest.raises(TicketError, match="layer '0': Silent does not say what is stored of it"):
        save(model(Silent(SHAPE, seed=4)), io.BytesIO(), architecture=None)


@pytest.mark.parametrize(
    ("planes", "values", "said"),
    [
        (["frozen"], {}, "plane 'frozen' of its edges: a ticket has 'mask', 'mask.1' to 'mask.63', 'flips'"),
        (["mask.2"], {}, "plane 'mask.2' has bits for the edges of plane 'mask.1', and there is none"),
        (coat_names(65), {}, "plane 'mask.64' of its edges"),
        ([], {"alpha": 1.0}, "value 'alpha' of its edges: a ticket has 'constant'"),
        ([], {"constant": 0.1}, "constant 0.1: expected a finite float32 from 0"),
        ([], {"constant": -1.0}, "constant -1.0: expected a finite float32 from 0"),
    ],
)
def test_names_that_a_ticket_does_not_have(planes: list[str], values: dict[str, float], said: str) -> None:
    edges = Odd(SHAPE, seed=4)
    edges.more = Stored(planes=dict.fromkeys(planes, edges.mask()), values=values)
    file = io.BytesIO()
    with pytest.raises(TicketError) as caught:
        save(model(edges), file, architecture=None)
    assert f"<BytesIO>: layer '0': {said}" in str(caught.value)
    assert file.getvalue() == b""


def random_words(rows: int, cols: int, seed: int) -> Tensor:
    return pack(torch.rand(rows, cols, generator=torch.Generator().manual_seed(seed)) < 0.4)


@pytest.mark.parametrize("encoding", ["raw", "ans"])
@pytest.mark.parametrize("weights", get_args(WeightInit))
@pytest.mark.parametrize("coats", [1, 2, 3, 4])
def test_round_trips_to_the_bit(coats: int, weights: WeightInit, encoding: Any) -> None:
    """Of every combination: weights, planes, values, and the same bytes when saved again."""
    for flips in (False, True) if "signed" in weights and weights != "unsigned_constant" else (False,):
        planes = [random_words(*SHAPE, 0)]
        for number in range(1, coats):
            planes.append(planes[-1] & random_words(*SHAPE, number))
        turned = random_words(*SHAPE, 9) if flips else None
        edges = PackedEdges(SHAPE, torch.stack(planes), flips=turned, seed=4, layer=5, generation=3, weights=weights,
                            constant=0.7)  # fmt: skip
        file, again = io.BytesIO(), io.BytesIO()
        info = save(model(edges), file, architecture=None, encoding=encoding)
        assert list(info.layers[0].planes) == [*coat_names(coats), *(["flips"] if flips else [])]
        loaded: Any = load(io.BytesIO(file.getvalue()), model=model(packed()))
        assert torch.equal(loaded[0].edges(torch.float32), edges(torch.float32))
        found, expected = loaded[0].edges.stored(), edges.stored()
        assert found.values == expected.values
        assert found.planes.keys() == expected.planes.keys()
        assert all(torch.equal(found.planes[name], plane) for name, plane in expected.planes.items())
        save(loaded, again, architecture=None, encoding=encoding)
        assert again.getvalue() == file.getvalue()


def test_a_layer_takes_43_bytes_more_than_in_version_2() -> None:
    """Of header, where it has one coat and no flips (docs/tickets.md)."""
    made = seeds()
    assert len(resign(made["raw"]) or b"") - len(made["version_2"]) == 2 * 43


def test_the_format_page_has_every_name() -> None:
    page = (ROOT / "docs" / "ticket-format.md").read_text()
    for name in ("mask", "flips", *VALUES):
        assert f"\n| `{name}` |" in page
    assert "\n| `mask.1` to `mask.63` |" in page
    assert set(PLANES) == {*coat_names(64), "flips"}
    assert all(f"| `{value.coding}` |" in page for value in VALUES.values())
    assert CODINGS.keys() == {value.coding for value in VALUES.values()}
