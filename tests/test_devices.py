"""The device that tests take is the one asked for, or the run fails before its first test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.devices import CPU, VARIABLE, On, device_named, home
from tests.places import ROOT

TEST = """
import os
import torch
from supermask.kernels.base.launch import interpreted

def test_where(device: torch.device) -> None:
    assert str(device) == os.environ["EXPECTED"]
    assert interpreted() == (device.type == "cpu")
    assert torch.zeros(1, device=device).device == device
"""


def pytest_on(name: str, folder: Path, expected: str) -> subprocess.CompletedProcess[str]:
    """A run of one test with the variable set, in two workers, the conftest being this suite's."""
    (folder / "test_it.py").write_text(TEST)
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    environment = os.environ | {VARIABLE: name, "EXPECTED": expected, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["cuda", "cpu"])
def test_a_device_that_is_there_is_taken_and_another_fails(name: str, tmp_path: Path) -> None:
    there = name == "cpu" or torch.cuda.is_available()
    done = pytest_on(name, tmp_path, "cuda:0" if name == "cuda" else "cpu")
    if there:
        assert done.returncode == 0, done.stdout
        assert "1 passed" in done.stdout
    else:
        assert done.returncode == pytest.ExitCode.USAGE_ERROR
        assert f"{VARIABLE}='cuda': torch {torch.__version__} finds no GPU here; run the tests where" in done.stderr
        assert "passed" not in done.stdout
        assert "skipped" not in done.stdout


def test_a_name_of_no_device_fails(tmp_path: Path) -> None:
    done = pytest_on("gpu", tmp_path, "cpu")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{VARIABLE}='gpu' names no device that tests run on: expected cpu, cuda or cuda:N" in done.stderr


@pytest.mark.parametrize("name", ["", "gpu", "meta", "cuda:", "cuda:x", "xpu", "mps", "cuda, cpu"])
def test_names_of_no_device_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{VARIABLE}='{name}' names no device"):
        device_named(name)


def test_gpus_have_an_index_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(device_named(name)) for name in ("cpu", "cuda", "cuda:0", "cuda:1")] == [
        "cpu", "cuda:0", "cuda:0", "cuda:1",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=f"{VARIABLE}='cuda:2': the GPUs here are cuda:0 to cuda:1; name one of them"):
        device_named("cuda:2")


def test_tensors_are_taken_with_their_strides_and_back(device: torch.device) -> None:
    base = torch.arange(60.0).view(3, 4, 5)
    strided = {
        "t": base.permute(2, 0, 1), "gaps": base[:, 1::2, ::3], "spread": base[:1, :, :1].expand(-1, -1, 7),
        "none": [None, (base[:0], 3)], "leaf": torch.nn.Parameter(base[1].clone()),
    }  # fmt: skip
    there = On(device)(strided)
    for name in ("t", "gaps", "spread", "leaf"):
        assert (there[name].device, there[name].stride()) == (device, strided[name].stride())
        assert torch.equal(home(there[name]), strided[name].detach())
        assert there[name].data_ptr() != strided[name].data_ptr()
    assert there["leaf"].requires_grad
    assert there["leaf"].is_leaf
    assert there["none"][0] is None
    assert there["none"][1][0].device == device
    assert home(there)["none"][1][0].device == CPU
