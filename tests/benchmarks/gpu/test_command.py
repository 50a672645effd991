"""The command: without a GPU it says what did not run; with one, parts run in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu.record import FORMAT, Run
from tests.places import ROOT

BARE = """
import runpy, sys
sys.modules.update(tyro=None, constriction=None)  # importing them fails
sys.argv = ["benchmarks.gpu", *sys.argv[1:]]
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


COUNTS = {
    "facts": {"measured": 5, "failed": 0, "not run": 1},
    "checks": {"measured": 3, "failed": 2, "not run": 0},
}


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_from_a_bare_clone_without_tyro_and_constriction(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    arguments = "--only", "facts", "steps", "--device", "cpu", "--json", str(path)
    done = subprocess.run(
        [sys.executable, "-c", BARE, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = "no kernel checked against the CPU nor timed (facts, steps)"
    assert done.stdout.startswith("did not run: ")
    assert said in done.stdout
    found = json.loads(path.read_text())
    assert (found["format"], found["runs"]) == (FORMAT, [])
    assert said in found["skipped"][0]


@pytest.mark.usefixtures("no_device")
def test_without_a_device_a_record_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"format": FORMAT, "skipped": [], "runs": [{"part": "facts", "cases": []}]}))
    before = path.read_text()
    assert command.main(["--json", str(path)]) == 0
    assert path.read_text() == before
    said = capsys.readouterr().out
    assert "no CUDA or ROCm device here" in said
    assert "facts, checks, products, convolutions, selection, passes, steps" in said


@pytest.mark.usefixtures("no_device")
def test_a_device_that_was_asked_for_and_a_file_that_cannot_be_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--device", "cuda"]) == 2
    assert "--device cuda: torch finds no CUDA or ROCm device here" in capsys.readouterr().err
    assert command.main(["--json", str(tmp_path / "missing" / "gpu.json")]) == 2
    assert "missing" in capsys.readouterr().err


@pytest.mark.usefixtures("no_device")
def test_a_wrong_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "facts", "speed"]) == 2
    assert "no part speed: there are facts, checks" in capsys.readouterr().err
    assert command.main(["--only", "facts", "passes", "--match", "resnet"]) == 2
    assert "no case of facts, passes has 'resnet' in its name; some names: the timer" in capsys.readouterr().err
    assert command.main(["--only", "facts", "--tune"]) == 2
    assert "--tune with --only facts: give one of them" in capsys.readouterr().err
    for flag, value in (("--seconds", "0"), ("--total", "-1"), ("--total", "inf")):
        assert command.main([flag, value]) == 2
        assert f"{flag} {value}: expected a number of seconds above 0" in capsys.readouterr().err
    for flag, value in (("--rounds", "0"), ("--threads", "-2")):
        assert command.main([flag, value]) == 2
        assert f"{flag} {value}: expected at least 1" in capsys.readouterr().err
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert command.main(["--json", str(other)]) == 2
    assert "move this one away" in capsys.readouterr().err


@pytest.mark.usefixtures("device")
def test_parts_run_in_processes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def start(arguments: list[str], *, check: bool, timeout: float) -> Any:
        started.append(arguments[1:])
        assert timeout == 2 * 7 + command.GRACE
        part = arguments[4]
        if part == "products":
            raise subprocess.TimeoutExpired(arguments, timeout)
        if part in COUNTS:
            Run(path, {"part": part}).note(counts=COUNTS[part])
        return subprocess.CompletedProcess(arguments, {"checks": 4, "passes": 1, "selection": -11}.get(part, 3))

    monkeypatch.setattr(subprocess, "run", start)
    path = tmp_path / "gpu.json"
    parts = ["facts", "checks", "products", "selection", "passes"]
    asked = ["--only", *parts, "--seconds", "7", "--match", "s", "--quick"]
    assert command.main([*asked, "--json", str(path)]) == 4
    expected = ["--seconds", "7.0", "--quick", "--match", "s", "--json", str(path)]
    assert started == [["-m", "benchmarks.gpu", "--only", part, *expected] for part in parts]
    said = capsys.readouterr().out.splitlines()
    ended = "products (killed after 74 s), selection (exit status -11), passes (exit status 1)"
    assert said[-3] == f"did not come to their ends: {ended}"
    assert said[-1] == "8 measured, 5 failed, 1 not run"
    found = {run["part"]: run["ended"] for run in json.loads(path.read_text())["runs"] if "ended" in run}
    assert found == {"products": "killed after 74 s", "selection": "exit status -11", "passes": "exit status 1"}


@pytest.mark.usefixtures("device")
def test_a_total_is_dealt_to_the_parts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now, given = [100.0], dict[str, float]()

    def start(arguments: list[str], *, check: bool, timeout: float) -> Any:
        part, seconds, path = arguments[4], float(arguments[6]), Path(arguments[-1])
        given[part] = seconds
        assert timeout == pytest.approx(640 - now[0] + command.GRACE / 2)
        now[0] += {"facts": 40, "checks": 300}.get(part, 100)
        Run(path, {"part": part}).note(counts={"measured": 1, "failed": 0, "not run": int(part == "passes")})
        return subprocess.CompletedProcess(arguments, 3 if part == "passes" else 0)

    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(subprocess, "run", start)
    assert command.main(["--only", "facts", "checks", "passes", "--total", "540"]) == 3
    assert given == pytest.approx({"facts": 540 / 3 - 12, "checks": 500 / 2 - 12, "passes": 200 - 12})
    assert capsys.readouterr().out.splitlines()[-1] == "3 measured, 0 failed, 1 not run"
    now[0] = 100.0
    assert command.main(["--only", "facts", "checks", "--total", "540"]) == 0


@pytest.mark.usefixtures("device")
def test_one_part_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Timer:
        def __init__(self, where: torch.device, **bounds: int) -> None:
            asked.append((where, bounds))

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(command, "DeviceTimer", Timer)
    monkeypatch.setattr(command, "run_part", lambda *given: asked.append(given) or COUNTS["checks"])
    assert command.main(["--only", "facts", "--quick", "--json", str(tmp_path / "gpu.json")]) == 4
    (where, bounds), (name, _, request, *_) = asked
    assert (where, bounds) == (torch.device("cuda", 1), {"fewest": 3, "most": 3})
    assert (name, request.seconds, request.json) == ("facts", 110.0, tmp_path / "gpu.json")
    assert request.settings["rounds"] == 3
