"""What stands beside the figures: PyTorch's settings, the commit, the clocks, the ceilings; and what is not here."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks._timing import environment
from benchmarks.gpu import facts, floors, steps
from benchmarks.gpu.flags import as_they_are, cudnn_tries, held_exact, whole_float32
from benchmarks.gpu.training import Setting
from tests.benchmarks.gpu.wall import CPU, TINY, WallTimer, bench


def test_settings_are_held_and_given_back() -> None:
    before = as_they_are()
    with held_exact():
        held = as_they_are()
    assert held == dict.fromkeys(held, False) | {"cuDNN deterministic": True}
    assert as_they_are() == before
    with whole_float32(), cudnn_tries():
        tries = {"TF32, matmul": False, "TF32, cuDNN": False, "cuDNN benchmark": True}
        assert as_they_are() == before | tries
    assert as_they_are() == before


def test_a_copy_without_history_says_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERMASK_COMMIT", "0123abc")
    assert environment(CPU)["commit"] == "0123abc"


def _smi(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nvidia-smi` is this program."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\nimport signal, sys\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_clocks_are_read_while_products_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ", ".join(f"v{index}" for index in range(len(facts.ASKED)))
    body = f"assert 'clocks.sm' in ' '.join(sys.argv)\nprint({answers!r})"
    cases = {case.name: case for case in facts.cases(facts.FactSizes(product=8, products=1))}
    for name in ("clocks at rest", "clocks under load"):
        _smi(tmp_path, body, monkeypatch)
        assert cases[name].run(bench())["nvidia-smi"]["name"] == "v0"
        _smi(tmp_path, "print('no such GPU')\nsys.exit(6)", monkeypatch)
        assert cases[name].run(bench())["unknown"] == "no such GPU"
    monkeypatch.setattr(facts, "PATIENCE", 0.2)
    _smi(tmp_path, "signal.pause()", monkeypatch)
    assert cases["clocks under load"].run(bench())["unknown"] == "nothing in 0.2 s"


def test_a_cache_is_at_least_as_fast_as_a_copy() -> None:
    for _ in range(3):
        found = floors.measured(CPU, WallTimer(), TINY)
        assert found.cached.median <= found.copy.median


def test_a_network_whose_package_is_absent_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "find_spec", lambda name: None)
    setting = Setting(network=steps.RESNET50, batch=1, dtype=torch.float32)
    at_hand = bench(match="eager")
    at_hand.run_all(steps.cases(steps.StepSizes(settings=(setting,))))
    (case,) = at_hand.run.cases
    assert case["not here"] == [f"{kind}: torchvision is not installed" for kind in steps.KINDS]
    assert case["left out"] == "no rival is here"
    assert at_hand.counts == {"measured": 1, "failed": 0, "not run": 1}
