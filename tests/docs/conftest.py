"""The ticket that most tests of the reader read."""

from pathlib import Path

import pytest

from supermask.edges.in_model import searched_edges
from supermask.tickets.save import save
from tests.docs.reading import conv2, searched
from tests.supermask.tickets.crafted import parts_of


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ticket with planes that are raw, whose bits all have the same odds, and with levels; nobody changes it."""
    path, model = tmp_path_factory.mktemp("ticket") / "good", searched()
    searched_edges(model)["fc1"].draw_scores()
    searched_edges(model)["fc2"].remaining = 0.5
    save(model, path, architecture=conv2())
    header, tensors = parts_of(path)
    assert {layer["planes"]["mask"]["encoding"] for layer in header["layers"]} == {"raw", "ans"}
    assert [tensors[f"{name}.mask"][0] for name in ("conv2", "fc1")] == [0, 1]
    return path
