"""The report as a reader has it: one page that needs nothing else, with the numbers of the runs."""

import base64
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from supermask.__main__ import main
from supermask.reports import plots
from supermask.reports.glossary import TERMS
from supermask.reports.lines import LabelError
from supermask.reports.page import PAGE, ReportError, write_report
from supermask.runs.read import MaskFileError, read_run
from supermask.runs.records import RunReadError
from tests.places import ROOT
from tests.supermask.runs.run_folders import write_ep, write_run

EVIL = "<script>alert('x') & \"y\"<"


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[str] = []
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        if tag == "img":
            self.images.append(found["src"] or "")
            assert found["alt"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "action", "style")]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and not rendered."""
    for module in ("figures", "pictures"):
        monkeypatch.setattr(f"supermask.reports.{module}.render", lambda figure, form: f"{figure} {form}".encode())


def read_page(out: Path) -> Page:
    page = Page((out / PAGE).read_text())
    assert not page.open
    return page


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """(report, runs) of every kind of run, one with an ugly name and one not finished."""
    path = tmp_path_factory.mktemp("runs")
    paths = [
        write_run(path / EVIL, seed=0),
        write_run(path / "soft1", seed=1, finished=False),
        write_run(path / "hard", name="digits_hard_iep", space="survivors"),
        write_run(path / "dense", name="digits_dense", dense=True),
        *write_ep(path),
    ]
    return write_report(paths, path / "out").parent, paths


def test_every_picture_is_a_png_in_the_page_and_beside_it(whole: tuple[Path, list[Path]]) -> None:
    out, _ = whole
    page = read_page(out)
    pictures = []
    for image in page.images:
        head, data = image.split(",", 1)
        assert head == "data:image/png;base64"
        pictures.append(base64.b64decode(data, validate=True))
        assert pictures[-1].startswith(b"\x89PNG\r\n\x1a\n")
    files = sorted(file.name for file in out.iterdir())
    kinds = [f"{kind}-{line}" for kind in ("layers", "ranks", "scores") for line in (1, 2, 4)]
    names = [*kinds, "accuracy", "dying", "overlap-1", "recalibrated", "training"]
    assert files == sorted([PAGE, *(f"{name}.{form}" for name in names for form in ("csv", "png"))])
    assert sorted(pictures) == sorted(file.read_bytes() for file in out.glob("*.png"))


def test_the_page_needs_nothing_else_and_runs_nothing(whole: tuple[Path, list[Path]]) -> None:
    page = read_page(whole[0])
    assert set(page.links) == set(page.images)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    text = (whole[0] / PAGE).read_text()
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_pictures_of_single_runs_are_of_the_lowest_seed_and_the_fewest_edges(whole: tuple[Path, list[Path]]) -> None:
    text = read_page(whole[0]).text
    for line in ("soft_iep, seed 0", "hard_iep, seed 0", "ep, 12.5 %, seed 0"):
        assert f"Score ranks: {line}" in text


def test_overlaps_are_of_one_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    paths = [write_run(tmp_path / f"soft{seed}", seed=seed, epochs=1) for seed in (4, 3)]
    shown: list[Any] = []
    draw = plots.overlap_map

    def overlap_map(names: Any, table: Any) -> Any:
        shown.append((names, table))
        return draw(names, table)

    monkeypatch.setattr(plots, "overlap_map", overlap_map)
    write_report([*paths, *write_ep(tmp_path, seeds=(3,), epochs=1)], tmp_path / "out")
    ((names, table),) = shown
    rates = ["50 %", "25 %", "12.5 %"]
    assert names == [f"{name} {rate}" for name in ("soft_iep", "ep") for rate in rates]
    assert [round(pair.expected, 2) for pair in table[0]] == [0.5] * 6
    assert [table[i][i].ratio for i in range(6)] == [1.0] * 6
    assert table[1][4].ratio == table[4][1].ratio < 1
    text = read_page(tmp_path / "out").text
    assert "1: soft_iep 50 %; 2: soft_iep 25 %; " in text
    assert "6: ep 12.5 %. Seed 3." in text


def test_numbers_of_the_table(whole: tuple[Path, list[Path]]) -> None:
    out, paths = whole
    cycles = read_page(out).tables[0]
    assert cycles[0] == ["line", "cycle", "remaining", "seeds", "accuracy (%)", "recalibrated (%)", "dying",
                         "cumulative dying", "explored", "dead units"]  # fmt: skip
    assert [row[:4] for row in cycles[1:]] == [
        *(["soft_iep", f"{i}", rate, "2"] for i, rate in ((1, "50 %"), (2, "25 %"), (3, "12.5 %"))),
        *(["hard_iep", f"{i}", rate, "1"] for i, rate in ((1, "50 %"), (2, "25 %"), (3, "12.5 %"))),
        ["dense", "1", "100 %", "1"],
        *(["ep", "1", rate, "1"] for rate in ("50 %", "25 %", "12.5 %")),
    ]
    assert cycles[7][4:] == ["98.0", "-", "-", "-", "-", "-"]
    hard = read_run(paths[2]).cycles[1]
    assert hard.accuracy is not None
    assert hard.recalibrated is not None
    assert cycles[5][4:] == [
        f"{100 * hard.accuracy:.1f}", f"{100 * hard.recalibrated:.1f}", f"{hard.dying:.3f}",
        f"{hard.dying_cumulative:.3f}", f"{hard.explored:.3f}", f"{hard.dead}",
    ]  # fmt: skip
    first, second = (100 * (read_run(path).cycles[0].accuracy or 0.0) for path in paths[:2])
    assert cycles[1][4] == f"{(first + second) / 2:.1f} ± {abs(first - second) / 2:.1f}"


def test_runs_and_their_settings(whole: tuple[Path, list[Path]]) -> None:
    out, paths = whole
    page = read_page(out)
    runs = {row[2]: row for row in page.tables[1][1:]}
    assert set(runs) == {str(path) for path in paths}
    assert runs[str(paths[0])][:2] == ["soft_iep", "digits_soft_iep"]
    assert runs[str(paths[0])][3:6] == ["0", "finished", "50 25 12.5"]
    assert runs[str(paths[1])][3:5] == ["1", "not finished: 3 of 3 cycles, 12 epochs"]
    assert runs[str(paths[0])][6:8] == ["6 s", "10%"]
    assert "space all+survivors" in runs[str(paths[2])][-1]
    assert "cycles 0" in runs[str(paths[3])][-1]
    assert ["training.lr", "0.3"] in page.tables[2]
    assert "7 runs in 4 lines, 2 seeds; 1 not finished." in page.text


def test_what_all_lines_share_and_what_terms_mean(whole: tuple[Path, list[Path]]) -> None:
    text = read_page(whole[0]).text
    assert "All lines: digits, mlp [64, 32, 24, 10]." in text
    for term, meaning in TERMS.items():
        assert f"{term}{meaning}" in text


def test_formats_and_labels(tmp_path: Path, quick: None) -> None:
    paths = [write_run(tmp_path / name, name=name, bare=True) for name in ("ep", "soft")]
    out = write_report(paths, tmp_path / "out", labels=("Edge-popup", "Soft iEP"), forms=("pdf", "svg")).parent
    page = read_page(out)
    assert sorted(file.name for file in out.glob("accuracy*")) == ["accuracy.csv", "accuracy.pdf", "accuracy.svg"]
    assert "accuracy.pdf, accuracy.svg, accuracy.csv" in page.text
    assert all(image.startswith("data:image/png;base64,") for image in page.images)
    assert [row[0] for row in page.tables[0][1:]] == ["Edge-popup"] * 3 + ["Soft iEP"] * 3
    with pytest.raises(LabelError, match=r"labels one: expected one for each of 2 lines, .* the lines are ep \("):
        write_report(paths, tmp_path / "none", labels=("one",))
    assert not (tmp_path / "none").exists()


def test_ugly_names_are_text(whole: tuple[Path, list[Path]]) -> None:
    out, _ = whole
    assert EVIL in read_page(out).text
    assert "<script" not in (out / PAGE).read_text()


def test_what_runs_did_not_record_is_left_out_and_said(tmp_path: Path, quick: None) -> None:
    path = write_run(tmp_path / "<b>", bare=True)
    out = write_report([path], tmp_path / "out").parent
    page = read_page(out)
    assert sorted(file.name for file in out.glob("*.png")) == [
        "accuracy.png", "dying.png", "recalibrated.png", "training.png",
    ]  # fmt: skip
    for what in ("overlap of masks", "score ranks", "scores by layer", "density and dying ratio by layer"):
        assert f"Left out: {what} of {path}: no " in page.text


@pytest.mark.parametrize("events", [0, 3, 5])
def test_a_run_that_was_killed_early(tmp_path: Path, events: int, quick: None) -> None:
    path = write_run(tmp_path / "run", bare=True)
    lines = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text("".join(line + "\n" for line in lines[:events]) + '{"event": "ev')
    page = read_page(write_report([path], tmp_path / "out").parent)
    assert "no searched cycle was evaluated" in page.text
    assert "not finished: " in page.text


def test_dense_runs_alone(tmp_path: Path, quick: None) -> None:
    out = write_report([write_run(tmp_path / "run", dense=True)], tmp_path / "out").parent
    assert [file.name for file in out.glob("*.png")] == ["training.png"]
    assert "98.0" in read_page(out).tables[0][1]


def test_different_networks_have_maps_of_their_own(tmp_path: Path, quick: None) -> None:
    paths = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", name="other", layers={"x": (9, 40), "y": (40, 30)}),
    ]
    out = write_report(paths, tmp_path / "out").parent
    assert sorted(file.name for file in out.glob("overlap*")) == [
        "overlap-1.csv",
        "overlap-1.png",
        "overlap-2.csv",
        "overlap-2.png",
    ]


def test_a_report_replaces_its_own_files_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    (out / PAGE).write_text("old")
    path = write_run(tmp_path / "run", bare=True)
    write_report([path], out)
    first = {file.name: file.read_bytes() for file in out.iterdir()}
    assert first["mine.txt"] == b"mine"
    assert first[PAGE] != b"old"
    write_report([path], out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == first


def test_bad_inputs(tmp_path: Path, quick: None) -> None:
    out = tmp_path / "out"
    with pytest.raises(ReportError, match="no run to report on"):
        write_report([], out)
    with pytest.raises(RunReadError, match="missing is not a run folder"):
        write_report([tmp_path / "missing"], out)
    path = write_run(tmp_path / "run")
    (path / "masks" / "cycle-2.safetensors").write_bytes(b"x")
    with pytest.raises(MaskFileError, match=r"cycle-2.safetensors: not a readable"):
        write_report([path], out)
    assert not out.exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ReportError, match=f"cannot write the report into {tmp_path}/file"):
        write_report([write_run(tmp_path / "good", bare=True)], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_command_line_writes_into_report_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    write_run(tmp_path / "run", bare=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["supermask", "report", "run"])
    main()
    assert capsys.readouterr().out == f"report/{PAGE}\n"
    assert (tmp_path / "report" / PAGE).is_file()
    monkeypatch.setattr("sys.argv", ["supermask", "report", "run", "--out", "else"])
    main()
    assert (tmp_path / "else" / PAGE).is_file()
    options = ["--out", "drawn", "--label", "my label", "--format", "png", "svg"]
    monkeypatch.setattr("sys.argv", ["supermask", "report", "run", *options])
    main()
    assert (tmp_path / "drawn" / "accuracy.svg").is_file()
    assert (tmp_path / "drawn" / "accuracy.csv").read_text().splitlines()[1].startswith("my label,50")


def test_bad_commands_exit_with_2_and_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "supermask", "report", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{tmp_path} is not a run folder: it has no config.json\n"


def test_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", bare=True)
    monkeypatch.setattr("sys.argv", ["supermask", "report", "run"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err == 'a report needs matplotlib: pip install "supermask[recipes]"\n'
    assert not (tmp_path / "report").exists()


@pytest.mark.usefixtures("unsynced_folders", "quick")
def test_a_report_that_a_power_cut_may_lose_is_not_called_unwritten(tmp_path: Path) -> None:
    with pytest.raises(ReportError) as caught:
        write_report([write_run(tmp_path / "run")], tmp_path / "out")
    (written,) = (tmp_path / "out").iterdir()
    assert str(caught.value).startswith(f"{written} is written, but a power cut may lose it")
    assert str(caught.value).endswith("; mend the disk and write the report again")
