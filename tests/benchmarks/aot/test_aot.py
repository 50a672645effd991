"""Every kernel compiles for every target and keeps its values in registers, and the check can fail."""

import fcntl
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.aot.about import ABOUT
from benchmarks.aot.limits import LIMITS
from benchmarks.aot.resources import TARGETS, AotError, kernel_name, resources_of
from benchmarks.aot.table import DOCS, as_markdown, key, read_json, regressions
from supermask import kernels
from tests.places import ROOT

PROBE = """
    import json
    from dataclasses import asdict

    import torch
    from triton.runtime import driver

    from supermask.kernels.base.launch import jit, launch, tl
    from benchmarks.aot.compile import TARGETS, AotError, compile_through

    SIZE = 16


    @jit
    def _sum_kernel(x_ptr, y_ptr, steps, N: tl.constexpr):
        at = tl.arange(0, N)
        total = tl.load(x_ptr + at)
        for step in range(steps):
            total = total * step + tl.load(y_ptr + at + step)
        tl.store(y_ptr + at, total)


    @jit
    def _rejected_kernel(x_ptr):
        tl.store(x_ptr, SIZE)


    x = torch.zeros(1 << 15)


    def sums(**meta):
        return lambda: launch(_sum_kernel, (1,), x, torch.empty_like(x), 3, num_warps=1, **meta)


    def twice_two():
        for n in (64, 128, 64, 128):
            sums(N=n)()


    @jit
    def _product_kernel(x_ptr, y_ptr, steps, N: tl.constexpr):
        i, j = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
        total = tl.zeros((N, N), tl.float32)
        for step in range(steps):
            x = tl.load(x_ptr + i * N + j + step)
            total = tl.dot(x, x, total)
        tl.store(y_ptr + i * N + j, total)


    def product():
        launch(_product_kernel, (1,), x.bfloat16(), x, 3, N=64, num_warps=4)


    report = {}
    for target in TARGETS:
        said = {}
        heavy = 1 << 15 if target == "gfx942" else 1 << 13  # a warp there has 64 lanes of up to 512 registers
        for name, call in {
            "light": sums(N=64),
            "heavy": sums(N=heavy),
            "fused": sums(N=64, enable_fp_fusion=True),
            "unfused": sums(N=64, enable_fp_fusion=False),
            "twice two": twice_two,
            "product": product,
        }.items():
            said[name] = [asdict(row) for row in compile_through(call, target)]
        before = driver._active
        try:
            compile_through(lambda: launch(_rejected_kernel, (1,), x), target)
        except AotError as error:
            said["error"] = str(error)
        said["driver restored"] = driver._active is before is None
        report[target] = said
    print(json.dumps(report))
"""


def _run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own: this one interprets kernels, so it cannot compile them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    environment = inherited | {"TRITON_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every configuration, compiled once for all the processes that run tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path = folder / "aot.json"
    with (folder / "aot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            done = _run(tmp_path_factory.mktemp("cache"), "-m", "benchmarks.aot", "--json")
            assert done.stdout, done.stderr
            path.write_text(done.stdout)
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("probe")
    script = folder / "probe.py"
    script.write_text(textwrap.dedent(PROBE))
    done = _run(folder / "cache", str(script))
    assert done.returncode == 0, done.stderr
    report: dict[str, dict[str, Any]] = json.loads(done.stdout)
    assert list(report) == list(TARGETS)
    return report


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


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("torch", "triton")}


def _against(said: dict[str, Any]) -> str:
    """What a difference from the committed table may be due to, for the message of a failure."""
    here, there = _versions(), {package: said[package] for package in ("torch", "triton")}
    if here == there:
        return "same Triton as committed: this code costs more; make it cheaper, or `python -m benchmarks.aot --write`"
    return f"compiled here with {here}, committed with {there}: the compiler may be the cause, the bounds still apply"


@pytest.mark.slow
def test_no_kernel_takes_more_instructions_an_edge_than_the_committed_table(rows: list[dict[str, Any]]) -> None:
    said, committed = read_json(DOCS / "resources.json")
    assert regressions(rows, committed) == [], _against(said)


@pytest.mark.slow
def test_the_committed_table_is_of_these_kernels(rows: list[dict[str, Any]]) -> None:
    said, committed = read_json(DOCS / "resources.json")
    assert {key(row)[:3] for row in rows} == {of[:3] for of in committed}, "run python -m benchmarks.aot --write"
    if {package: said[package] for package in ("torch", "triton")} == _versions():
        assert {key(row) for row in rows} == set(committed), "run python -m benchmarks.aot --write"


def test_the_page_is_of_the_committed_table() -> None:
    said, committed = read_json(DOCS / "resources.json")
    page = (DOCS / "resources.md").read_text()
    assert page == as_markdown(committed.values(), said), "run python -m benchmarks.aot --write"


def test_a_regression_is_seen() -> None:
    _, committed = read_json(DOCS / "resources.json")
    rows = [dict(row) for row in committed.values()]
    assert regressions(rows, committed) == []
    row = next(row for row in rows if row["per_edge"] is not None)
    row["per_edge"] = row["per_edge"] * 1.03 + 0.06
    (said,) = regressions(rows, committed)
    assert row["kernel"] in said
    assert "per_edge is" in said


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


@pytest.mark.slow
def test_weights_from_scores_are_made_at_the_speed_of_memory(rows: list[dict[str, Any]]) -> None:
    made = [row for row in rows if row["kernel"].startswith("subnet.")]
    assert {row["target"] for row in made} == set(TARGETS)
    assert [row for row in made if row["integer_per_edge"] > SUBNET] == []


@pytest.mark.slow
def test_random_draws_round_every_step(rows: list[dict[str, Any]]) -> None:
    drawn = [row for row in rows if row["kernel"].startswith("philox.")]
    assert drawn
    assert [row for row in drawn if row["fused"]] == []


@pytest.mark.slow
def test_configurations_are_told_apart(rows: list[dict[str, Any]]) -> None:
    keys = [(row["kernel"], row["target"], row["config"]) for row in rows]
    assert len(set(keys)) == len(keys)


@pytest.mark.slow
def test_spills_are_seen(probe: dict[str, dict[str, Any]]) -> None:
    for target, said in probe.items():
        (light,), (heavy,) = said["light"], said["heavy"]
        assert light["spills"] == 0, target
        assert heavy["spills"] > 0, target
        assert 0 < light["registers"] <= heavy["registers"], target
        assert 0 < light["instructions"] < heavy["instructions"], target


@pytest.mark.slow
def test_fused_multiply_adds_are_seen(probe: dict[str, dict[str, Any]]) -> None:
    for target, said in probe.items():
        assert said["fused"][0]["fused"] > 0, target
        assert said["unfused"][0]["fused"] == 0, target


@pytest.mark.slow
def test_each_configuration_is_compiled_once(probe: dict[str, dict[str, Any]]) -> None:
    for said in probe.values():
        first, second = (row["config"] for row in said["twice two"])
        assert "N=64 " in first
        assert "N=128 " in second


@pytest.mark.slow
def test_a_rejected_kernel_is_named_and_the_driver_restored(probe: dict[str, dict[str, Any]]) -> None:
    for target, said in probe.items():
        assert said["error"].startswith(f"_rejected_kernel does not compile for {target}: ")
        assert "SIZE" in said["error"]
        assert said["driver restored"]


@pytest.mark.slow
def test_matrix_instructions_are_seen(probe: dict[str, dict[str, Any]]) -> None:
    names = {"sm_80": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "gfx942": "v_mfma"}
    for target, said in probe.items():
        (product,), (light,) = said["product"], said["light"]
        assert product["matrix"] > 0, target
        assert product["matrix_kind"].startswith(names[target]), target
        assert light["matrix"] == 0, target


def test_targets_have_limits() -> None:
    assert LIMITS.keys() == TARGETS.keys()


@pytest.mark.parametrize("target", TARGETS)
def test_unreadable_resources_are_an_error(target: str) -> None:
    function = SimpleNamespace(__name__="_pack_kernel")
    broken = SimpleNamespace(src=SimpleNamespace(fn=function), asm={"cubin": b"no cubin", "amdgcn": "no assembly"})
    with pytest.raises(AotError, match=rf"resources of bits\._pack_kernel on {target}: "):
        resources_of(broken, target, log="")


def test_an_interpreting_process_is_refused(tmp_path: Path) -> None:
    done = _run(tmp_path, "-m", "benchmarks.aot", TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert "TRITON_INTERPRET is set" in done.stderr
    assert done.stdout == ""
