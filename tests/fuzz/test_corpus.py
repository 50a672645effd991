"""The reader keeps its promises (tests/fuzz/targets.py) for all files that fuzzing left, and for some hundreds more."""

import io
import sys
from pathlib import Path
from random import Random

import pytest

from supermask import verify
from tests.fuzz import fuzz_tickets, targets
from tests.fuzz.mutations import join, mutate, resign, split
from tests.fuzz.seeds import seeds

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
SEEDS = [path for path in CORPUS if path.name.startswith("seed_")]


def test_corpus() -> None:
    """Files are named after what they are for; their number cannot shrink to those that are refused at once."""
    outcomes = {path.name: targets.check(path.read_bytes()) for path in CORPUS}
    assert all(outcomes[path.name] == "accepted" for path in SEEDS)
    assert len(SEEDS) >= 19
    refusals = {outcome for outcome in outcomes.values() if not outcome.startswith("accepted")}
    assert len(refusals) >= 120, sorted(refusals)
    assert sum(path.stat().st_size for path in CORPUS) < 200_000


def test_a_little_fuzzing() -> None:
    """The same few hundred mutations every time, without an engine that watches what they reach."""
    outcomes = set()
    for number in range(300):
        random = Random(number)
        outcomes.add(targets.check(mutate(random.choice(SEEDS).read_bytes(), random)))
    assert "accepted" in outcomes
    assert len(outcomes) >= 45, sorted(outcomes)


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.name)
def test_signing_again_changes_nothing_of_a_good_ticket(path: Path) -> None:
    data = path.read_bytes()
    parts = split(data)
    assert parts is not None
    again = resign(data)
    assert again == join(parts)
    other = split(again)
    assert other is not None
    assert sorted(other.header) == sorted(parts.header)
    assert other.tensors == parts.tensors


def test_a_change_gets_past_the_digest_when_it_is_signed() -> None:
    data = SEEDS[0].read_bytes()
    assert resign(b"") is None
    assert resign(data[:200]) is None
    changed = data.replace(b'\\"seed\\":7,', b'\\"seed\\":8,')
    assert changed != data
    assert "its SHA-256" not in targets.check(resign(changed) or b"")
    assert targets.check(changed).startswith("damaged: ")


def test_seeds_are_made_as_they_were() -> None:
    """Every kind of ticket is there, small."""
    made = seeds()
    assert {f"seed_{name}" for name in made} == {path.name for path in SEEDS}
    assert all(verify(io.BytesIO(data)).layers for data in made.values())
    assert sum(map(len, made.values())) < 30_000


def test_without_atheris_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert fuzz_tickets.main(["--seconds", "1"]) == 2
    assert "python -m pip install atheris" in capsys.readouterr().err
