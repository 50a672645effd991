"""The lowest versions that pyproject.toml allows are those that CI runs with."""

import re
import tomllib

from tests.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_floor_is_pinned_and_nothing_else() -> None:
    wanted = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    floors = set()
    for line in wanted:
        if line.startswith("supermask["):
            continue
        found = re.fullmatch(r"([A-Za-z0-9_-]+)>=([0-9.]+)(;.*)?", line)
        assert found, f"{line}: a dependency has a floor and nothing else, so that CI can run it"
        floors.add(f"{found[1]}=={found[2]}")
    assert sorted(floors) == (ROOT / ".ci" / "lowest.txt").read_text().split()


def test_the_build_has_the_floor_of_the_tests() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert set(build) <= set(PROJECT["optional-dependencies"]["tests"])
