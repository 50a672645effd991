"""The grids of the paper's tables and figures, as commands, at their smallest."""

from dataclasses import replace
from pathlib import Path

import pytest

from supermask.methods import METHODS
from supermask.methods.edge_popup import EP
from supermask.methods.method import Method
from supermask.recipes._grid import DENSE, ROWS, TABLE_3, Compared, Grid, at_rates, experiments, spread
from supermask.reports.figures import new_figure
from tests.recipes.command import run

SMALL = ["--seeds", 1, "--epochs", 1, "--folder", "grid"]
EP_LONG = TABLE_3["EP long"]


def columns(path: Path) -> list[list[str]]:
    """Cells of a Markdown table, without its rule."""
    lines = path.read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.glob("*/*")) if path.is_file()}


@pytest.mark.slow
def test_figure3_table3_and_figure5_share_their_runs(tmp_path: Path) -> None:
    options = [*SMALL, "--cycles", 2]
    done = run("recipes.figure3", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    grid = tmp_path / "grid"
    (head, *rows) = columns(grid / "figure3.md")
    assert head == ["method", "50 %", "25 %"]
    assert sorted(row[0] for row in rows) == sorted(["dense", *TABLE_3, "EP long, lr 0.03"])
    assert all(50 < float(row[1]) <= 100 for row in rows)
    # At the first rate every row of Table 3 is the same run.
    assert len({row[1] for row in rows if row[0] not in ("dense", "EP long, lr 0.03")}) == 1
    assert (grid / "figure3.png").read_bytes().startswith(b"\x89PNG")
    drawn = [line.split(",") for line in (grid / "figure3.csv").read_text().splitlines()]
    assert drawn[0] == ["line", "remaining (%)", "test accuracy (%)", "standard error", "seeds"]
    assert {row[0] for row in drawn[1:]} >= {"EP", "soft iEP", "dense"}
    before = snapshot(grid)
    assert len([name for name in before if name.endswith("metrics.jsonl")]) == 1 + 2 + 8 + 1 + 2
    done = run("recipes.table3", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "13 runs" not in done.stdout
    _, *rows = columns(grid / "table3.md")
    assert [row[0] for row in rows] == list(TABLE_3)
    assert [row[1] for row in rows[:4]] == [
        "`EP()`", "`EPLong()`", "`IEP(space='survivors')`", "`IEP(lr='final', space='survivors')`"
    ]  # fmt: skip
    assert rows[0][2] == "0.800 initial rewind all; 0.640 initial rewind all; 0.512 initial rewind all"
    assert rows[1][2] == "0.512 initial rewind all x3"
    assert rows[2][2] == "0.800 initial rewind all; 0.640 inherit rewind survivors; 0.512 inherit rewind survivors"
    done = run("recipes.figure5", *options, "--out", "drawn", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {
        "figure5a.csv", "figure5a.md", "figure5a.png", "figure5b_hard_iep.csv", "figure5b_hard_iep.png",
        "figure5b_soft_iep.csv", "figure5b_soft_iep.png",
    }  # fmt: skip
    assert snapshot(grid) == before
    done = run("recipes.figure4a", *options, "--out", "drawn", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 runs in grid, 3 of them done" in done.stdout  # EP at two rates, and soft iEP
    (head, *rows) = columns(tmp_path / "drawn" / "figure4a.md")
    assert head == ["method", "50 %", "25 %"]
    assert [row[0] for row in rows] == ["EP", "soft iEP", "3-coated EP", "3-coated soft iEP"]
    assert all(50 < float(cell) <= 100 for row in rows for cell in row[1:])
    assert (tmp_path / "drawn" / "figure4a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_tables_1_and_2(tmp_path: Path) -> None:
    for name in ("table1", "table2"):
        done = run(f"recipes.{name}", *SMALL, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    _, *rows = columns(tmp_path / "grid" / "table1.md")
    assert [row[0] for row in rows] == ["0.200", "0.360", "0.488", "0.590", "0.672", "0.738", "0.790", "0.832"]
    dying = [float(row[1]) for row in rows]
    assert dying == sorted(dying)
    for row in rows:
        assert float(row[1]) + float(row[2]) == pytest.approx(float(row[0]), abs=2e-3)
    _, *rows = columns(tmp_path / "grid" / "table2.md")
    assert [len(row) for row in rows] == [6] * 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--seeds", 0], "seeds=0"),
        (["--epochs", 0], "epochs=0"),
        (["--cycles", 9], "cycles=9"),
        (["--root", "x"], "root=x"),
        (["--folder", "/proc/grid"], "/proc/grid"),
    ],
)
def test_bad_arguments_end_with_two_and_leave_nothing(options: list[object], says: str, tmp_path: Path) -> None:
    done = run("recipes.figure5", *options, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_plan_of_a_grid_writes_nothing(tmp_path: Path) -> None:
    done = run("recipes.figure3", "--dry-run", "--cycles", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for label in ("dense", *TABLE_3):
        assert f"\n{label}, 5 seeds" in done.stdout
    assert not list(tmp_path.iterdir())


def test_folders_say_what_a_run_is() -> None:
    grid = Grid()
    one, _, other, *_ = experiments(grid.setting(), [ROWS["EP"]])
    assert one.job(grid, 0).folder == one.job(grid, 0).folder
    folders = {one.job(grid, 0).folder, one.job(grid, 1).folder, other.job(grid, 0).folder}
    changed = Grid(lr=0.1)
    folders.add(experiments(changed.setting(), [ROWS["EP"]])[0].job(changed, 0).folder)
    assert len(folders) == 4


def test_rows_are_those_of_table_3_and_say_what_they_run() -> None:
    assert list(ROWS) == list(METHODS)
    assert all(row.label == row.title == label for label, row in ROWS.items())
    assert list(TABLE_3) == list(METHODS)[:10]
    setting = Grid(cycles=3).setting()
    slower = replace(EP_LONG, lr=0.03)
    assert slower.label == "EP long, lr 0.03"
    long = experiments(setting, [slower])
    assert [cycle.length for made in long for cycle in (made.method or EP()).phases()] == [1, 2, 3]
    assert {(experiment.label, experiment.setting.training.lr) for experiment in long} == {("EP long, lr 0.03", 0.03)}
    soft, dense = experiments(setting, [ROWS["soft iEP"], DENSE])
    assert soft.method is not None
    assert [cycle.remaining for cycle in soft.method.phases()] == list(setting.rates)
    assert dense.method is None


WITHOUT_RATES = "sampled", "signed"


@pytest.mark.parametrize("label", [label for label in METHODS if label not in WITHOUT_RATES])
def test_every_method_is_measured_at_every_rate(label: str) -> None:
    rates = 0.5, 0.25, 0.125
    runs = at_rates(METHODS[label], rates)
    found = [getattr(run, "remaining", run.phases()[-1].remaining) for run in runs]
    assert found == list(rates if len(runs) > 1 else rates[-1:])
    assert len(runs) == (1 if "iEP" in label else 3)
    assert {type(run) for run in runs} == {type(METHODS[label])}


def test_a_method_without_rates_is_refused() -> None:
    for method in (Method(), *(METHODS[label] for label in WITHOUT_RATES)):
        with pytest.raises(ValueError, match="without rates"):
            at_rates(method, (0.5,))


def test_a_run_says_the_method_that_its_cycles_do_not() -> None:
    grid = Grid(cycles=2)
    (soft,) = experiments(grid.setting(), [ROWS["soft iEP"]])
    assert "method" not in soft.job(grid, 0).arguments
    one, other = experiments(grid.setting(), [ROWS["IteRand"]])
    assert one.job(grid, 0).make().method == replace(METHODS["IteRand"], remaining=0.5, every=24)
    assert one.job(grid, 0).folder != other.job(grid, 0).folder
    often = replace(ROWS["IteRand"], method=replace(METHODS["IteRand"], chance=0.2))
    assert experiments(grid.setting(), [often])[0].job(grid, 0).folder != one.job(grid, 0).folder


def test_figures_are_drawn_in_the_formats_asked_for(tmp_path: Path) -> None:
    figure, _ = new_figure()
    wrote = Grid(out=tmp_path / "out", format=("pdf", "svg")).draw("a", figure, [("line", "x"), ("EP", 0.5)])
    assert [path.name for path in wrote] == ["a.pdf", "a.svg", "a.csv"]
    assert wrote[0].read_bytes().startswith(b"%PDF")
    assert wrote[2].read_text() == "line,x\nEP,0.5\n"
    with pytest.raises(ValueError, match="format='gif': expected one of 'png', 'pdf', 'svg'"):
        Grid(format=("png", "gif"))  # type: ignore[arg-type]


def test_spread() -> None:
    assert spread(96.14, 0.2) == "96.1 ± 0.2"
    assert spread(96.14, float("nan")) == "96.1"


FOLDERS = {
    ROWS["EP"]: "digits_ep-83953fe3",
    ROWS["EP long"]: "digits_ep-e87e6a68",
    ROWS["soft iEP"]: "digits_soft_iep-c444f497",
    ROWS["soft iEP zero"]: "digits_soft_iep_zero-5b7a1ab3",
    ROWS["soft iEP SRw zero"]: "digits_soft_iep_srw_zero-d6473c9a",
    ROWS["hard iEP FT"]: "digits_hard_iep_ft-1aab00d5",
    DENSE: "digits_dense-82deb319",
    replace(EP_LONG, lr=0.03): "digits_ep-9a0809a6",
}


@pytest.mark.parametrize("row", FOLDERS, ids=lambda row: row.label)
def test_runs_of_earlier_grids_are_found(row: Compared) -> None:
    """Folders of version 0.1.0, at the last rate."""
    grid = Grid(device="cpu", folder=Path("grid"))
    assert experiments(grid.setting(), [row])[-1].job(grid, 3).folder == Path("grid") / f"{FOLDERS[row]}-seed3"
