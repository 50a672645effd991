"""The frame that benchmarks share: options from flags, ratios within a round, what is printed and written."""

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as together
from benchmarks._flags import parse
from benchmarks._report import Comparison, Options, Report, command, show
from benchmarks._timing import Sample, environment, interleaved
from tests.places import ROOT


def _report() -> Report:
    seconds = {"ours": Sample(rounds=(1.0, 2.0, 4.0)), "theirs": Sample(rounds=(3.0, 4.0, 20.0))}
    comparison = Comparison(case="a case", base="ours", seconds=seconds, checked="both give 7")
    return Report(title="A title", comparisons=(comparison,), notes=("a note",), skipped=("a part: no device",))


def _run(options: Options) -> Report:
    assert options.rounds_of(11) == 3
    assert torch.get_num_threads() == 1
    return _report()


def test_ratios_are_taken_within_a_round() -> None:
    over = _report().comparisons[0].over_base()
    assert over["theirs"].rounds == (3.0, 2.0, 5.0)
    assert over["theirs"].median == 3.0
    assert over["theirs"].low == pytest.approx(2.4)
    assert over["theirs"].high == pytest.approx(4.2)
    assert over["ours"].rounds == (1.0, 1.0, 1.0)


def test_a_base_that_was_not_timed_is_an_error() -> None:
    with pytest.raises(ValueError, match="base 'other' is not among"):
        Comparison(case="a", base="other", seconds={"one": Sample(rounds=(1.0,))}, checked="")


def test_everything_is_printed() -> None:
    text = StringIO()
    show(_report(), torch.device("cpu"), Console(file=text, width=120))
    printed = text.getvalue()
    for part in ("A title", "a case", "ours", "theirs", "2000", "4000", "both give 7", "a note", "a part: no device"):
        assert part in printed
    assert "3 rounds" in printed


def test_a_command_writes_what_it_measured(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    command(_run, ["--quick", "--threads", "1", "--json", str(path)])
    said = json.loads(path.read_text())
    (comparison,) = said["comparisons"]
    assert comparison["over_base"]["theirs"]["median"] == 3.0
    assert comparison["seconds"]["ours"] == {"median": 2.0, "low": 1.4, "high": pytest.approx(3.2), "rounds": 3}
    assert comparison["checked"] == "both give 7"
    assert said["skipped"] == ["a part: no device"]
    assert said["environment"].keys() >= {"name", "threads", "commit", "torch", "triton", "numpy"}


@pytest.mark.parametrize(
    ("flags", "rounds"), [({}, 11), ({"quick": True}, 3), ({"rounds": 5}, 5), ({"rounds": 5, "quick": True}, 5)]
)
def test_rounds(flags: dict[str, int], rounds: int) -> None:
    assert Options(**flags).rounds_of(11) == rounds


@dataclass(frozen=True, kw_only=True)
class _Flags(Options):
    sizes: tuple[int, ...] = (1, 2)
    """how
    large"""
    rate: float = 0.5
    folder: Path = Path("x")
    off_by_default: bool = False


def test_fields_are_flags_and_what_stands_below_them_their_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(_Flags, [], description="") == _Flags()
    given = ["--sizes", "3", "4", "5", "--rate", ".1", "--folder", "y", "--off-by-default", "--device", "cpu"]
    given += ["--rounds", "7", "--json", "out"]
    expected = _Flags(
        sizes=(3, 4, 5), rate=0.1, folder=Path("y"), off_by_default=True, device="cpu", rounds=7, json=Path("out")
    )
    assert parse(_Flags, given, description="") == expected
    for wrong, said in ((["--round", "1"], "--round"), (["--device", "tpu"], "tpu"), (["--rounds", "x"], "x")):
        with pytest.raises(SystemExit):
            parse(_Flags, wrong, description="")
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(_Flags, ["--help"], description="What it does")
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("What it does", "how large ((1, 2))", "of PyTorch and of the kernels", "{cpu,cuda}"):
        assert part in shown


def test_every_round_has_another_order() -> None:
    called: list[str] = []
    calls = {name: lambda name=name: called.append(name) for name in "abc"}
    samples = interleaved(calls, rounds=20, warmup=1, calls=2)
    assert "".join(called[:3]) == "abc"
    rounds = ["".join(called[at : at + 6]) for at in range(3, len(called), 6)]
    assert all(sorted(each) == list("aabbcc") and each[::2] == each[1::2] for each in rounds)
    neighbours = {each[at : at + 2] for each in (one[::2] for one in rounds) for at in (0, 1)}
    assert neighbours == {"ab", "ac", "ba", "bc", "ca", "cb"}
    assert [len(sample.rounds) for sample in samples.values()] == [20, 20, 20]


def test_the_commit_is_named() -> None:
    commit = str(environment(torch.device("cpu"))["commit"])
    assert commit == "unknown" or len(commit.rstrip("+")) == 40


def test_all_benchmarks_are_listed_and_answer() -> None:
    folder = Path(together.__file__).parent
    modules = {path.stem for path in folder.glob("[a-z]*.py")}
    packages = {path.parent.name for path in folder.glob("*/__main__.py")}
    assert modules | packages == {*together.BENCHMARKS, "roofline", "aot"}  # two of which measure nothing


@pytest.mark.parametrize("name", together.BENCHMARKS)
def test_a_benchmark_can_be_imported(name: str) -> None:
    assert importlib.import_module(f"benchmarks.{name}").__doc__


def test_flags_are_handed_on() -> None:
    assert together.flags(Options()) == []
    options = Options(device="cpu", rounds=2, quick=True, threads=1, json=Path("all.json"))
    assert together.flags(options) == ["--quick", "--device", "cpu", "--rounds", "2", "--threads", "1"]


def test_one_file_for_all_and_a_failure_stops_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "all.json"
    monkeypatch.setattr(together, "BENCHMARKS", ("nowhere", "gpu"))
    assert together.main(["--device", "cpu", "--json", str(path)]) == 1
    said = json.loads(path.read_text())
    assert list(said["failed"]) == ["nowhere"]
    assert "no kernel checked" in said["benchmarks"]["gpu"]["skipped"][0]
    assert together.main(["--only", "missing"]) == 2


def test_what_did_not_run_is_said() -> None:
    command_line = [sys.executable, "-m", "benchmarks", "--only", "gpu", "--device", "cpu"]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "did not run: gpu: " in done.stdout
