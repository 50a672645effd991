"""Every kernel compiles for every target and keeps its values in registers, in few instructions an edge.

Compiling them all takes minutes of a processor. So the rows of cases whose sources are those of the committed table of
the installed Triton are taken from it; one case is compiled whatever its sources are, and shows that this is right.
"""

import fcntl
import importlib
import json
import os
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.aot.about import ABOUT
from benchmarks.aot.resources import TARGETS, kernel_name
from benchmarks.aot.stored import Row, key, newest, of_installed, regressions
from supermask import kernels
from tests.benchmarks.aot.alone import run_alone

ALWAYS = "philox"  # which compiles in seconds


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Every configuration, compiled (or found committed) once for all the processes that run tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path = folder / "aot.json"
    with (folder / "aot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_text(_compiled(tmp_path_factory.mktemp("cache"), "--changed"))
    found: list[Row] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Those of the case `ALWAYS`, compiled."""
    found: list[Row] = json.loads(_compiled(tmp_path_factory.mktemp("cache"), "--case", ALWAYS))
    return found


def _compiled(cache: Path, *options: str) -> str:
    done = run_alone(cache, "-m", "benchmarks.aot", "--json", *options)
    assert done.stdout, done.stderr
    return done.stdout


def _kernel_names() -> set[str]:
    names = set()
    for entry in pkgutil.walk_packages(kernels.__path__, f"{kernels.__name__}."):
        module = importlib.import_module(entry.name)
        for name, value in vars(module).items():
            if re.fullmatch(r"_\w+_kernel", name) and hasattr(value, "fn"):
                function = value
                while hasattr(function, "fn"):  # the decorators of an autotuned kernel stand inside each other
                    function = function.fn
                names.add(kernel_name(function))
    return names


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_for_every_target(rows: list[dict[str, Any]], target: str) -> None:
    assert {row["kernel"] for row in rows if row["target"] == target} == _kernel_names()


@pytest.mark.slow
def test_no_kernel_spills(rows: list[dict[str, Any]]) -> None:
    assert [row for row in rows if row["spills"]] == []


@pytest.mark.slow
def test_products_use_the_matrix_units(rows: list[dict[str, Any]]) -> None:
    assert [row for row in rows if row["matrix_missing"]] == []


@pytest.mark.slow
def test_every_kernel_says_what_it_does_for_an_edge(rows: list[dict[str, Any]]) -> None:
    assert {row["kernel"] for row in rows} == set(ABOUT)
    for row in rows:
        assert 0 < row["occupancy"] <= 1, row
        if ABOUT[row["kernel"]].edges is not None:
            assert 0 < row["integer_per_edge"] < row["per_edge"], row
            assert row["bytes_per_edge"] > 0, row


@pytest.mark.slow
def test_no_kernel_takes_more_instructions_an_edge_than_the_committed_table(rows: list[Row]) -> None:
    committed = of_installed()
    said = "make it cheaper, or run python -m benchmarks.aot --changed --write"
    assert committed is None or regressions(rows, committed.by_key()) == [], said


@pytest.mark.slow
def test_the_committed_table_is_of_these_kernels(rows: list[Row]) -> None:
    """Of a Triton without a table the configurations may differ, and the kernels and variants may not."""
    said = "run python -m benchmarks.aot --changed --write"
    assert {key(row)[:3] for row in rows} == {key(row)[:3] for row in newest().rows}, said
    committed = of_installed()
    assert committed is None or {key(row) for row in rows} == set(committed.by_key()), said


@pytest.mark.slow
def test_committed_rows_are_what_compiling_gives(rows: list[Row], always: list[Row]) -> None:
    assert {row["target"] for row in always} == set(TARGETS)
    found = {key(row): row for row in always}
    for row in rows:
        if row["case"] == ALWAYS:
            assert {name: found[key(row)][name] for name in row} == row


# What draws the signs for 128 edges, and what makes 16-bit weights of bits and signs, in integer instructions an edge.
SIGNS, WEIGHTS = 1.0, 4.0


@pytest.mark.slow
def test_weights_are_made_of_bits_in_few_instructions(rows: list[dict[str, Any]]) -> None:
    """All of the main loop of a product with kept signs counts here, addresses and activations too."""
    kept = [row for row in rows if re.search(r"^(bf16|fp16), signs, ", row["variant"]) and row["matrix"]]
    assert {row["target"] for row in kept} == set(TARGETS)
    assert [row for row in kept if row["integer_per_edge"] > WEIGHTS] == []


@pytest.mark.slow
def test_signs_are_drawn_in_less_than_one_instruction_an_edge(rows: list[dict[str, Any]]) -> None:
    """What a product takes more when it draws its signs than when it reads them."""
    of = {(row["kernel"], row["variant"], row["target"]): row for row in reversed(rows) if row["matrix"]}
    pairs = [
        (of[kernel, variant.replace(", signs", ", seed"), target]["integer_per_edge"] - row["integer_per_edge"], row)
        for (kernel, variant, target), row in of.items()
        if ", signs" in variant
    ]
    assert len(pairs) >= len(TARGETS)
    assert [row for more, row in pairs if more >= SIGNS] == []


@pytest.mark.slow
def test_words_of_signs_are_drawn_in_less_than_one_instruction_an_edge(rows: list[dict[str, Any]]) -> None:
    """All that is not a product reads the words of kernels that do nothing but draw them, each call in one thread."""
    drawing = "sign_words", "score_signs"
    drawn = [row for row in rows if row["kernel"] in drawing]
    assert {(row["kernel"], row["target"]) for row in drawn} == {(kernel, of) for kernel in drawing for of in TARGETS}
    assert [row for row in drawn if row["integer_per_edge"] >= SIGNS] == []
    # The reals take a word an edge.
    with_seed = {row["kernel"] for row in rows if " seed" in row["config"] or "seed" in row["variant"]}
    others = {kernel for kernel in with_seed if not kernel.startswith("masked_")}
    assert others == {drawing[0], "uniform", "normal"}


# An H100 takes its integer units' time, not the memory's, for the 8 bytes and more of an edge when it needs more.
SUBNET = 40
A_COAT = 12  # that each coat beyond the first may need besides: with several it is no longer the memory's time


@pytest.mark.slow
def test_weights_from_scores_are_made_at_the_speed_of_memory(rows: list[dict[str, Any]]) -> None:
    made = [row for row in rows if row["kernel"] in ("subnet", "subnet_backward")]
    assert {row["target"] for row in made} == set(TARGETS)
    coats = {row["variant"]: re.match(r"(\d+) coats", row["variant"]) for row in made}
    most = {name: SUBNET + A_COAT * (int(found[1]) - 1 if found else 0) for name, found in coats.items()}
    assert [row for row in made if row["integer_per_edge"] > most[row["variant"]]] == []


@pytest.mark.slow
def test_random_draws_round_every_step(always: list[Row]) -> None:
    assert {row["kernel"] for row in always} == {"sign_words", "uniform", "normal"}
    assert [row for row in always if row["fused"]] == []


@pytest.mark.slow
def test_configurations_are_told_apart(rows: list[dict[str, Any]]) -> None:
    keys = [(row["kernel"], row["target"], row["config"]) for row in rows]
    assert len(set(keys)) == len(keys)
