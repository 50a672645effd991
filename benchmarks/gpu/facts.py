"""The card: its name and clocks, what it moves and multiplies at best, what a launch takes."""

import subprocess
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.bench import Bench, Case, Rival
from benchmarks.gpu.drawn import normals
from benchmarks.gpu.floors import Work
from benchmarks.gpu.itself import check_timer

__all__ = ["FactSizes", "card", "cases"]

ASKED = (
    "name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.draw", "power.limit",
    "temperature.gpu", "clocks_event_reasons.active", "compute_mode", "mig.mode.current",
)  # fmt: skip


PATIENCE = 20.0  # seconds


@dataclass(frozen=True, kw_only=True)
class FactSizes:
    """Of what runs while clocks are read."""

    product: int = 8192
    """Rows and columns of bfloat16 matrices."""
    products: int = 100
    """Enqueued at a time, again and again, until the clocks are read."""


def cases(sizes: FactSizes) -> list[Case]:
    """What the card is and does."""
    return [
        Case(name="the timer itself", run=check_timer),
        Case(name="card", run=_card),
        Case(name="clocks at rest", run=lambda bench: _read(_asking(bench.device))),
        Case(name="ceilings", run=_ceilings),
        Case(name="clocks under load", run=partial(_under_load, sizes=sizes)),
        Case(name="a launch", run=_launch),
    ]


def card(device: torch.device) -> dict[str, Any]:
    """What PyTorch says of it."""
    if device.type != "cuda":
        return {"name": str(device)}
    about = torch.cuda.get_device_properties(device)
    return {
        "name": about.name,
        "capability": list(torch.cuda.get_device_capability(device)),
        "processors": about.multi_processor_count,
        "memory, bytes": about.total_memory,
        "cache, bytes": about.L2_cache_size,
        "CUDA": torch.version.cuda,
        "HIP": torch.version.hip,
        "cuDNN": torch.backends.cudnn.version(),
        "architecture": getattr(about, "gcnArchName", ""),
    }


def _card(bench: Bench) -> dict[str, Any]:
    found = card(bench.device)
    return found | {"lines": [f"{name}: {value}" for name, value in found.items()]}


def _asking(device: torch.device) -> subprocess.Popen[str] | str:
    """nvidia-smi at work, asked about the device, or why it cannot be."""
    of = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    which = [f"--id=GPU-{str(of.uuid).removeprefix('GPU-')}"] if hasattr(of, "uuid") else []
    command = ["nvidia-smi", *which, f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader"]
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        return str(error)


def _read(asked: subprocess.Popen[str] | str) -> dict[str, Any]:
    """What it says, or why it says nothing."""
    if isinstance(asked, str):
        return {"unknown": asked, "lines": [f"unknown: {asked}"]}
    try:
        said = asked.communicate(timeout=PATIENCE)[0].strip()
    except subprocess.TimeoutExpired:
        asked.kill()
        said = asked.communicate()[0].strip() or f"nothing in {PATIENCE:g} s"
    if asked.returncode or not said:
        return {"unknown": said, "lines": [f"unknown: {said[:200]}"]}
    answers = [answer.strip() for answer in said.splitlines()[0].split(",")]
    found = dict(zip(ASKED, answers, strict=False))
    return {"nvidia-smi": found, "lines": [f"{name}: {value}" for name, value in found.items()]}


def _ceilings(bench: Bench) -> dict[str, Any]:
    found = bench.ceilings.summary()
    return {"ceilings": found, "lines": [_rate(name, rate) for name, rate in found.items()]}


def _rate(name: str, rate: Any) -> str:
    if isinstance(rate, dict):
        return f"{name}: {rate['median']:.4g} [{rate['low']:.4g}, {rate['high']:.4g}]"
    return f"{name}: {rate}"


def _under_load(bench: Bench, sizes: FactSizes) -> dict[str, Any]:
    """While products run, from before it is asked until it has answered."""
    a, out = (normals(sizes.product, sizes.product, device=bench.device).bfloat16() for _ in range(2))

    def busy() -> None:
        for _ in range(sizes.products):
            torch.mm(a, a, out=out)

    busy()
    asked, end = _asking(bench.device), time.monotonic() + PATIENCE
    while not isinstance(asked, str) and asked.poll() is None and time.monotonic() < end:
        busy()
        bench.timer.wait()
    found = _read(asked)
    bench.timer.wait()
    return found


def _launch(bench: Bench) -> dict[str, Any]:
    """The shortest kernel, in a graph and from Python: no call can be faster, whatever its floor."""
    x = torch.zeros(1, device=bench.device)
    rivals = {"an addition of one number": Rival(calls=[lambda: x.add_(1)], work=Work(bytes=8))}
    return bench.compare(rivals, base="an addition of one number", warm=True)
