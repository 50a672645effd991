"""Every kernel compiles for every target and keeps its values in registers, and the check can fail."""

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kernels
from kernels.aot import TARGETS, AotError, _resources

ROOT = Path(__file__).parents[2]

PROBE = """
    import json
    from dataclasses import asdict

    import torch
    from triton.runtime import driver

    from kernels._launch import jit, launch, tl
    from kernels.aot import TARGETS, AotError, compile_through

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
    done = _run(tmp_path_factory.mktemp("cache"), "-m", "kernels.aot", "--json")
    assert done.stdout, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
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
    for entry in pkgutil.iter_modules(kernels.__path__):
        module = importlib.import_module(f"kernels.{entry.name}")
        for name, value in vars(module).items():
            if re.fullmatch(r"_\w+_kernel", name) and hasattr(value, "fn"):
                function = value
                while hasattr(function, "fn"):  # the decorators of an autotuned kernel stand inside each other
                    function = function.fn
                names.add(f"{function.__module__.removeprefix('kernels.')}.{function.__name__}")
    return names


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_for_every_target(rows: list[dict[str, Any]], target: str) -> None:
    assert {row["kernel"] for row in rows if row["target"] == target} == _kernel_names()


@pytest.mark.slow
def test_no_kernel_spills(rows: list[dict[str, Any]]) -> None:
    assert [row for row in rows if row["spills"]] == []


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


@pytest.mark.parametrize("target", TARGETS)
def test_unreadable_resources_are_an_error(target: str) -> None:
    function = SimpleNamespace(module="kernels.bits", __name__="_pack_kernel")
    broken = SimpleNamespace(src=SimpleNamespace(fn=function), asm={"cubin": b"no cubin", "amdgcn": "no assembly"})
    with pytest.raises(AotError, match=rf"resources of bits\._pack_kernel on {target}: "):
        _resources(broken, target, log="")


def test_an_interpreting_process_is_refused(tmp_path: Path) -> None:
    done = _run(tmp_path, "-m", "kernels.aot", TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert "TRITON_INTERPRET is set" in done.stderr
    assert done.stdout == ""
