"""Runs that differ only in their seed are one line; everything else keeps them apart and is in the label."""

import math
import shutil
import statistics
from pathlib import Path

import pytest

from supermask.reports.lines import LabelError, differing, group, line, settings, shared
from supermask.runs.read import read_run
from tests.supermask.runs.run_folders import HALVED, edit_config, write_ep, write_run


def test_seeds_are_one_line_with_standard_errors(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / str(seed), seed=seed)) for seed in range(4)]
    (drawn,) = group(runs)
    assert drawn.label == "digits_soft_iep"
    assert not drawn.dense
    assert [point.cycle for point in drawn.points] == [1, 2, 3]
    assert [point.remaining for point in drawn.points] == [cycle.remaining for cycle in runs[0].cycles]
    for index, point in enumerate(drawn.points):
        values = [run.cycles[index].accuracy or 0.0 for run in runs]
        expected = statistics.fmean(values), statistics.stdev(values) / 2
        assert point.mean("accuracy") == pytest.approx(expected)
        assert list(point.seeds) == [0, 1, 2, 3]


def test_ep_at_several_rates_is_one_line_of_several_points(tmp_path: Path) -> None:
    runs = [read_run(path) for path in write_ep(tmp_path, seeds=(0, 1), rates=(0.125, 0.5, 0.25))]
    (drawn,) = group(runs)
    assert [point.remaining for point in drawn.points] == pytest.approx([0.5, 0.25, 0.125], abs=1e-3)
    assert all(list(point.seeds) == [0, 1] for point in drawn.points)


def test_rates_that_differ_in_the_last_digit_are_one_point(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / str(seed), seed=seed, rates=[0.25 - 1e-16 * seed]) for seed in range(2)]
    (drawn,) = group(map(read_run, paths))
    assert len(drawn.points) == 1


def test_cycles_group_only_where_all_stages_agree(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=1, rates=(0.5, 0.25))
    write_run(tmp_path / "c", seed=2, space="survivors")
    write_run(tmp_path / "d", seed=3)
    lines = group(read_run(tmp_path / name) for name in "abcd")
    assert [[run.seed for run in drawn.runs] for drawn in lines] == [[0, 3], [1], [2]]
    assert [drawn.label for drawn in lines] == [
        "cycles=3 remaining=0.5 to 0.125 space=all",
        "cycles=2 remaining=0.5 to 0.25 space=all",
        "cycles=3 remaining=0.5 to 0.125 space=all+survivors",
    ]


def test_run_options_do_not_keep_runs_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=1)
    edit_config(tmp_path / "b", run={"seed": 1, "folder": None, "quiet": True, "device": "cpu:0"}, processes=2)
    assert len(group(read_run(tmp_path / name) for name in "ab")) == 1


def test_the_kind_of_device_keeps_runs_apart_and_not_its_number(tmp_path: Path) -> None:
    for seed, (name, device) in enumerate(zip("abc", ("cpu", "cuda:0", "cuda:1"), strict=True)):
        edit_config(write_run(tmp_path / name, seed=seed), device=device)
    lines = group(read_run(tmp_path / name) for name in "abc")
    assert [drawn.label for drawn in lines] == ["device=cpu", "device=cuda"]


def test_code_keeps_runs_apart_and_labels_say_it_short(tmp_path: Path) -> None:
    parts = [{}, {"training": {"type": "mine.Adam", "source": {"mine": "a" * 64}}}]
    parts.append({"training": {"type": "mine.Adam", "source": {"mine": "b" * 64}}})
    for seed, (name, code) in enumerate(zip("abc", parts, strict=True)):
        edit_config(write_run(tmp_path / name, seed=seed), **({"code": code} if code else {}))
    edit_config(write_run(tmp_path / "d", seed=3), results=1)  # which the first release did not say
    lines = group(read_run(tmp_path / name) for name in "abcd")
    assert [drawn.label for drawn in lines] == [
        "digits_soft_iep",
        "training=mine.Adam source=mine aaaaaaaa",
        "training=mine.Adam source=mine bbbbbbbb",
    ]
    assert len(lines[0].runs) == 2


def test_a_label_names_the_settings_that_differ_and_only_within_a_name(tmp_path: Path) -> None:
    rates = [0.125]
    write_run(tmp_path / "a", name="digits_ep_long", rates=rates, lr=0.3)
    write_run(tmp_path / "b", name="digits_ep_long", rates=rates, lr=0.03)
    write_run(tmp_path / "c", name="digits_ep", rates=rates, lr=0.1)
    labels = [drawn.label for drawn in group(read_run(tmp_path / name) for name in "abc")]
    assert labels == ["ep_long lr=0.3", "ep_long lr=0.03", "ep"]


def test_labels_are_unique_where_the_settings_read_alike(tmp_path: Path) -> None:
    for name, middle in (("a", 0.3), ("b", 0.25), ("c", 0.2)):
        write_run(tmp_path / name, rates=(0.5, middle, 0.125))
    labels = [drawn.label for drawn in group(read_run(tmp_path / name) for name in "abc")]
    assert labels == ["digits_soft_iep", "digits_soft_iep (2)", "digits_soft_iep (3)"]


@pytest.mark.parametrize(
    ("names", "labels", "title"),
    [
        (["digits_ep", "digits_ep_long"], ["ep", "ep_long"], "digits, mlp [64, 32, 24, 10]"),
        (["cifar10_soft_iep", "cifar10_soft_iep_ft"], ["iep", "iep_ft"], "cifar10_soft, Digits, mlp [64, 32, 24, 10]"),
        (["digits", "digits_ep"], ["digits", "digits_ep"], "Digits, mlp [64, 32, 24, 10]"),
        (["ep", "soft_iep"], ["ep", "soft_iep"], "Digits, mlp [64, 32, 24, 10]"),
        (["ep"], ["ep"], "Digits, mlp [64, 32, 24, 10]"),
    ],
)
def test_what_names_share_is_in_the_title(names: list[str], labels: list[str], title: str, tmp_path: Path) -> None:
    lines = group([read_run(write_run(tmp_path / name, name=name)) for name in names])
    assert [drawn.label for drawn in lines] == labels
    assert shared(lines) == title


def test_one_recipe_in_several_lines_is_in_the_title_and_what_differs_is_not(tmp_path: Path) -> None:
    for name, lr in (("a", 0.1), ("b", 0.2)):
        write_run(tmp_path / name, lr=lr)
    edit_config(tmp_path / "b", network={"name": "conv2", "arguments": {}})
    lines = group([read_run(tmp_path / name) for name in "ab"])
    assert shared(lines) == "digits_soft_iep, Digits"
    assert shared([]) == shared([line("nothing", [])]) == ""


def test_lines_are_called_as_they_are_told(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name, name=name)) for name in ("d_a", "d_b")]
    assert [drawn.label for drawn in group(runs, ("first", "second"))] == ["first", "second"]
    for labels in (("one",), ("one", "two", "three"), ("same", "same")):
        with pytest.raises(LabelError, match=r"expected one for each of 2 lines, .* the lines are a \("):
            group(runs, labels)


def test_short_names_stay_unambiguous() -> None:
    all_settings = [
        {"training.lr": "1", "cycles.lr": "x", "a.b": "1"},
        {"training.lr": "2", "cycles.lr": "y", "a.b": "2"},
    ]
    assert differing(all_settings) == {"training.lr": "training.lr", "cycles.lr": "cycles.lr", "a.b": "b"}
    assert differing([{"a.b": "1"}, {"a.b": "1"}]) == {}
    assert differing([{"a.b": "1"}, {}]) == {"a.b": "b"}
    assert differing([{"a.b": "1"}, {}], taken={"b"}) == {"a.b": "a.b"}


def test_settings_say_what_a_run_is_and_not_where(tmp_path: Path) -> None:
    found = settings(read_run(write_run(tmp_path / "run", seed=5)))
    assert found["training.lr"] == "0.3"
    assert found["network.arguments.sizes"] == "[64, 32, 24, 10]"
    assert found["cycles"] == "3"
    assert found["cycles.scores"] == "initial+inherit"
    assert found["Evaluate.recalibrate"] == "true"
    assert not [name for name in found if name.startswith(("run", "device", "name"))]


def test_a_run_named_twice_counts_once_and_so_does_a_seed(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", rates=[0.5])
    shutil.copytree(first, tmp_path / "copy")
    write_run(tmp_path / "b", rates=[0.5], seed=1)
    once = group(map(read_run, [first, tmp_path / "b"]))[0].points[0].mean("accuracy")
    (tmp_path / "x").mkdir()
    twice = group(map(read_run, [first, tmp_path / "x" / ".." / "a", tmp_path / "b"]))
    again = group(map(read_run, [first, tmp_path / "copy", tmp_path / "b"]))[0].points[0]
    assert len(twice[0].runs) == 2
    assert again.mean("accuracy") == pytest.approx(once)


def test_an_unfinished_run_gives_the_points_it_has(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / str(seed), seed=seed)) for seed in range(2)]
    file = tmp_path / "1" / "metrics.jsonl"
    file.write_text(
        "".join(line + "\n" for line in file.read_text().splitlines()[:5])
    )  # its first cycle, not evaluated
    runs[1] = read_run(tmp_path / "1")
    (drawn,) = group(runs)
    assert [len(point.seeds) for point in drawn.points] == [2, 1, 1]
    mean, error = drawn.points[0].mean("accuracy") or (0.0, 0.0)
    assert mean == runs[0].cycles[0].accuracy
    assert math.isnan(error)
    dying = drawn.points[0].mean("dying")
    assert dying is not None
    assert not math.isnan(dying[1])


def test_a_caller_may_name_and_mix(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / str(rate), rates=[rate], lr=rate)) for rate in HALVED]
    assert len(group(runs)) == 3
    drawn = line("EP", runs)
    assert drawn.label == "EP"
    assert len(drawn.points) == 3
    assert line("dense", [read_run(write_run(tmp_path / "dense", dense=True))]).dense
    assert line("nothing", []).points == ()
