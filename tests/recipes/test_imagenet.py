"""The ImageNet recipe, whole, on a small folder of JPEGs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import supermask
from supermask.runs.read import read_metrics
from tests.recipes.command import run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of striped JPEGs of uneven sizes, in ImageFolder layout; one is grey, as some of ImageNet's are."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 5)):
        for label, axis in (("across", 0), ("along", 1)):
            folder = root / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = generator.integers(40, 90, size=2)
                stripes = (np.indices((height, width))[axis] // 4 % 2) * 200
                pixels = (stripes[..., None] + generator.integers(0, 55, (height, width, 3))).astype(np.uint8)
                image = Image.fromarray(pixels)
                (image.convert("L") if number == 0 else image).save(folder / f"{number}.jpeg")
    return root


SMALL = ["--training.epochs", 2, "--training.warmup", 1, "--data.batch", 8, "--data.size", 32, "--data.resize", 40,
         "--run.device", "cpu"]  # fmt: skip
RESNET18 = ["--network.name", "torchvision/resnet18"]
NARROW = ["--network.name", "resnet18", "--network.arguments", "width", 0.25]


@pytest.mark.parametrize(
    ("workers", "network", "arguments"),
    [
        pytest.param(0, RESNET18, {"num_classes": 2}, marks=pytest.mark.slow),
        (2, NARROW, {"num_classes": 2, "width": 0.25}),
    ],
)
def test_runs_end_to_end_on_a_folder_of_jpegs(
    images: Path, tmp_path: Path, workers: int, network: list[object], arguments: dict[str, float]
) -> None:
    folder = tmp_path / "run"
    options = [*SMALL, *network, "--data.root", images, "--data.workers", workers, "--run.folder", folder]
    done = run("recipes.imagenet_soft_iep", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    events = read_metrics(folder)
    cycles = [event for event in events if event["event"] == "cycle"]
    assert [cycle["remaining"] for cycle in cycles] == pytest.approx([0.3 ** (i / 3) for i in (1, 2, 3)], abs=1e-4)
    assert len([event for event in events if event["event"] == "epoch"]) == 6
    ticket = supermask.inspect(folder / "ticket.safetensors")
    assert ticket.architecture.name == network[1]
    assert ticket.architecture.arguments == arguments
    assert events[-2]["same_logits"]
    assert events[-1] == {"event": "end"}


def test_bfloat16_and_a_pinned_output_layer(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["--data.root", images, "--data.workers", 0, "--run.folder", folder, "--training.precision", "bfloat16"]
    options += ["--conversion.overrides", "fc", 1.0, "--cycles", 1]
    done = run("recipes.imagenet_soft_iep", *SMALL, *NARROW, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (fc,) = [layer for layer in supermask.inspect(folder / "ticket.safetensors").layers if layer.name == "fc"]
    assert fc.kept == 128 * 2


@pytest.mark.parametrize("empty", [False, True])
def test_without_a_data_set_one_sentence_and_exit_code_two(tmp_path: Path, empty: bool) -> None:
    if empty:
        (tmp_path / "nowhere" / "train" / "class").mkdir(parents=True)
    done = run("recipes.imagenet_soft_iep", "--data.root", tmp_path / "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert f"{tmp_path}/nowhere/train" in sentence
    assert "download ImageNet" in sentence
    assert not list(tmp_path.rglob("*.jsonl"))


def test_classes_that_differ_between_train_and_val_are_refused(tmp_path: Path) -> None:
    for part, label in (("train", "a"), ("train", "b"), ("val", "a")):
        (tmp_path / part / label).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / part / label / "0.jpeg")
    done = run("recipes.imagenet_soft_iep", "--data.root", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "['b']" in done.stderr


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (40, 40)).save(tmp_path / part / "a" / f"{number}.jpeg")
    damaged = tmp_path / "train" / "a" / "3.jpeg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    done = run("recipes.imagenet_soft_iep", *SMALL, *NARROW, "--data.root", tmp_path, "--data.workers", 0, cwd=tmp_path)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert f"cannot read image {damaged}" in sentence


def test_a_signal_to_all_processes_saves_and_the_run_goes_on(images: Path, tmp_path: Path) -> None:
    options = [*SMALL, *NARROW, "--data.root", images, "--data.workers", 2, "--cycles", 1, "--run.folder"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run("recipes.imagenet_soft_iep", *options, whole, cwd=tmp_path).returncode == 0
    arguments = "group", 2, "recipes.imagenet_soft_iep", *options, stopped
    done = run("tests.recipes.stopped", *arguments, cwd=tmp_path, own_group=True)
    assert done.returncode == 128 + 15, done.stderr
    assert "interrupted by SIGTERM at step 2" in done.stderr
    assert "Traceback" not in done.stderr
    # Other decoding processes are the same run.
    options[options.index("--data.workers") + 1] = 0
    assert run("recipes.imagenet_soft_iep", *options, stopped, "--resume", cwd=tmp_path).returncode == 0
    for name in ("metrics.jsonl", "ranks.jsonl", "ticket.safetensors"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
