"""The kernel of docs/kernels.md, as it stands there: its test passes, fails where the kernel is wrong; it compiles."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.places import ROOT

KERNEL, TEST, CASE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "kernels.md").read_text(), re.DOTALL)

COMPILE = """
import json
from dataclasses import asdict

from benchmarks.aot.compile import compile_through
from benchmarks.aot.cases import CASES

import differing

found = [row for target in ("sm_90", "gfx942") for row in compile_through(CASES["differing"], target)]
print(json.dumps([asdict(row) for row in found]))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The page's kernel and its tests, as one module."""
    path = tmp_path_factory.mktemp("guide") / "differing.py"
    path.write_text(KERNEL + TEST)
    spec = importlib.util.spec_from_file_location("differing", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["differing"] = module  # where Triton looks for the kernel's source
    spec.loader.exec_module(module)
    return module


def test_its_tests_pass(page: ModuleType) -> None:
    page.test_differing()
    page.test_the_op_is_registered_as_it_behaves()


def test_its_tests_can_fail(page: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "cdiv", lambda a, b: max(1, a // b))  # leaves the last block of rows out
    with pytest.raises(AssertionError):
        page.test_differing.hypothesis.inner_test(rows=5, cols=33, seed=0)


def test_masks_that_do_not_belong_together_are_refused(page: ModuleType) -> None:
    words = page.torch.zeros(2, 4, dtype=page.torch.int32)
    with pytest.raises(ValueError, match=r"b is torch.int32 of shape \(3, 4\)"):
        page.differing(words, page.torch.zeros(3, 4, dtype=page.torch.int32))


@pytest.mark.slow
def test_it_compiles_and_its_costs_are_read(tmp_path: Path) -> None:
    (tmp_path / "differing.py").write_text(KERNEL + CASE)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    environment = inherited | {
        "TRITON_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
    }
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 4
    assert {row["kernel"] for row in rows} == {"differing"}
    assert all(row["spills"] == 0 and 0 < row["integer_per_edge"] < row["per_edge"] < 4 for row in rows)
