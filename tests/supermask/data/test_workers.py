"""Processes that decode images: no signal but their trainer's exit ends them, and that one does."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from supermask.data.base import Batch, Part
from supermask.data.image_folder import ImageFolder, heed_no_signals
from tests.places import ROOT


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of noise."""
    root, generator = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for number in range(24):
        path = root / ("train" if number < 16 else "val") / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return root


HOLDING = """
import sys
import torch
from supermask.data.base import Part
from supermask.data.image_folder import ImageFolder

root, which, ending = sys.argv[1:]
folder = ImageFolder(root=root, batch=2, size=32, resize=32, workers=2)
loaded = folder.open(seed=0, device=torch.device("cpu"))
batches = getattr(loaded, which)(Part())
for batch in batches:
    break
if ending == "passed":
    list(batches)
    again = loaded.train(Part(epoch=1))
    next(again)
if ending == "raises":
    raise SystemExit(3)
print("held")
"""


@pytest.mark.parametrize(("which", "ending"), [("test", "in a pass"), ("train", "passed"), ("train", "raises")])
def test_a_process_that_holds_its_data_to_the_end_ends(which: str, ending: str, root: Path) -> None:
    """A recipe's own script does, a notebook, and whatever an exception that ends the process keeps."""
    done = subprocess.run(
        [sys.executable, "-c", HOLDING, str(root), which, ending],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert (done.returncode, done.stderr) == (3 if ending == "raises" else 0, "")


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_takes_no_batch(
    number: signal.Signals, begun: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To workers that decode, and to ones that were forked just now."""

    def met_early(*given: Any) -> None:
        os.kill(os.getpid(), number)
        heed_no_signals(*given)

    if not begun:
        monkeypatch.setattr("supermask.data.image_folder.heed_no_signals", met_early)

    def batches(workers: int) -> list[Batch]:
        folder = ImageFolder(root=root, batch=2, size=32, resize=32, workers=workers)
        found = []
        for batch in folder.open(seed=0, device=torch.device("cpu")).train(Part()):
            for worker in (set(multiprocessing.active_children()) - others) if begun else ():
                os.kill(worker.pid or 0, number)
            found.append(batch)
        return found

    others = set(multiprocessing.active_children())
    for batch, expected in zip(batches(2), batches(0), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(batch, expected, strict=True))
