"""Tickets that many tests read."""

from pathlib import Path

import pytest

from supermask.tickets.save import save
from tests.supermask.tickets.digit_tickets import MLP, SMALL, digits
from tests.supermask.tickets.digit_tickets import ticket as ticket_of
from tests.supermask.tickets.networks import mlp, searched


@pytest.fixture
def ticket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small good ticket with batch-norm statistics and masks whose last bytes are not full."""
    path = tmp_path_factory.mktemp("ticket") / "good.safetensors"
    save(searched(mlp(9, 5, 3), 4, 9), path, architecture=mlp(9, 5, 3))
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ticket of a residual network."""
    return ticket_of(tmp_path_factory.mktemp("small"), SMALL, SMALL.build(), digits(64, (3, 32, 32)), remaining=0.3)


@pytest.fixture(scope="session")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ticket of linear layers, quick to export."""
    return ticket_of(tmp_path_factory.mktemp("linear"), MLP, MLP.build(), digits(64, (64,)))
