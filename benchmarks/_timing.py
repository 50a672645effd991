"""Timing rivals against each other on a machine that is never quite idle.

Every round runs each candidate once, in another order each time, so that neither a slow moment nor a neighbour that
leaves the caches full favours one, and what is compared is the ratio within a round. Times are wall clock, with the
device waited for.
"""

import os
import platform
import random
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

__all__ = ["Sample", "environment", "interleaved", "ratios"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A number measured in each of several rounds."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.rounds))

    @property
    def low(self) -> float:
        """The 20 % quantile."""
        return float(np.quantile(self.rounds, 0.2))

    @property
    def high(self) -> float:
        """The 80 % quantile."""
        return float(np.quantile(self.rounds, 0.8))

    def summary(self) -> dict[str, float]:
        return {"median": self.median, "low": self.low, "high": self.high, "rounds": len(self.rounds)}


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    device: torch.device | None = None,
    calls: int = 1,
) -> dict[str, Sample]:
    """Seconds a call of each candidate takes, by name.

    Args:
        candidates: what to call; results are dropped.
        rounds: timed calls of each, at least 1.
        warmup: calls of each before, untimed.
        device: waited for around every timing; None or a CPU is not.
        calls: in a row that one timing takes the mean of, so that waiting for a device weighs little.

    Raises:
        ValueError: no candidate, or rounds below 1.
    """
    if not candidates or rounds < 1:
        raise ValueError(f"{len(candidates)} candidates in {rounds} rounds: expected at least one of each")

    def wait() -> None:
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)

    for call in candidates.values():
        for _ in range(warmup):
            call()
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    for _ in range(rounds):
        order.shuffle(names)
        for name in names:
            wait()
            before = time.perf_counter()
            for _ in range(calls):
                candidates[name]()
            wait()
            seconds[name].append((time.perf_counter() - before) / calls)
    return {name: Sample(rounds=tuple(values)) for name, values in seconds.items()}


def ratios(samples: Mapping[str, Sample], base: str) -> dict[str, Sample]:
    """Each sample over `base`'s, round by round."""
    return {
        name: Sample(rounds=tuple(a / b for a, b in zip(sample.rounds, samples[base].rounds, strict=True)))
        for name, sample in samples.items()
    }


def environment(device: torch.device) -> dict[str, object]:
    """What a measurement depends on and a reader must know: versions, commit, device, threads."""
    versions: dict[str, object] = {"python": platform.python_version()}
    for package in ("torch", "triton", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "name": name,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        **versions,
    }


def _commit() -> str:
    """What SUPERMASK_COMMIT says, for a copy without its history; else that of the checkout this file is in, with `+`
    where a file differs from it; "unknown" outside of one."""
    if said := os.environ.get("SUPERMASK_COMMIT"):
        return said

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
