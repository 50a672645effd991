"""Compiling without a GPU: spills, matrix instructions and errors are seen, and nothing of it stays behind."""

import json
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.aot.limits import LIMITS
from benchmarks.aot.resources import TARGETS, AotError, resources_of
from tests.benchmarks.aot.alone import run_alone

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


    def active():
        try:
            return driver.active
        except RuntimeError:  # no GPU
            return None


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
        before = active()
        try:
            compile_through(lambda: launch(_rejected_kernel, (1,), x), target)
        except AotError as error:
            said["error"] = str(error)
        said["driver restored"] = active() is before
        report[target] = said
    print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("probe")
    script = folder / "probe.py"
    script.write_text(textwrap.dedent(PROBE))
    done = run_alone(folder / "cache", str(script))
    assert done.returncode == 0, done.stderr
    report: dict[str, dict[str, Any]] = json.loads(done.stdout)
    assert list(report) == list(TARGETS)
    return report


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
    with pytest.raises(AotError, match=rf"resources of pack on {target}: "):
        resources_of(broken, target, log="")


def test_an_interpreting_process_is_refused(tmp_path: Path) -> None:
    done = run_alone(tmp_path, "-m", "benchmarks.aot", TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert "TRITON_INTERPRET is set" in done.stderr
    assert done.stdout == ""
