"""Whole training steps, dense and searched, in the forms a user can run them in, in turn: images a second.

A step is forward, cross-entropy, backward and SGD with momentum (benchmarks/search_step.py), on images channels-last.
Its forms: the network compiled; the whole step captured in a CUDA graph; the compiled step captured; compiled with
mode="reduce-overhead", which captures graphs itself; eager; with "max-autotune", which does so too, and tries for
minutes. cuDNN chooses by trying, for both kinds. Before a search step is timed, steps in that form are held to what is
exact of them: every forward selects what a stable sort of the scores selects, and every step moves the scores of every
layer.
"""

import time
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks.gpu.bench import Bench, Case, NotHere, Rival
from benchmarks.gpu.flags import cudnn_tries
from benchmarks.gpu.small import Replays, check_replays
from benchmarks.gpu.timer import Program
from benchmarks.gpu.training import FORMS, MODES, Form, Setting, check_search, forget_compiled, least, prepared
from benchmarks.search_step import RESNET18, Network

__all__ = ["RESNET50", "StepSizes", "cases"]

RESNET50 = Network(name="torchvision/resnet50", size=224, classes=1000)
KINDS = "search", "dense"  # what a search keeps between steps stays its own where a later capture shares its memory
REPLAYS = Replays()


def _settings() -> tuple[Setting, ...]:
    """What matters most first, while there is time."""
    sizes = ((RESNET50, 256), (RESNET18, 128), (RESNET18, 512), (RESNET50, 64))
    dtypes = torch.bfloat16, torch.float32
    return tuple(Setting(network=of, batch=batch, dtype=dtype) for dtype in dtypes for of, batch in sizes)


@dataclass(frozen=True, kw_only=True)
class StepSizes:
    """What is trained, and how."""

    settings: tuple[Setting, ...] = _settings()
    forms: tuple[Form, ...] = FORMS
    replays: Replays = REPLAYS


def cases(sizes: StepSizes) -> list[Case]:
    """Replays against eager steps, to the bit; then one setting after the other, in every form."""
    timed = [
        Case(name=f"{form}: {setting.name}", run=partial(_time, form=form, setting=setting))
        for setting in sizes.settings
        for form in sizes.forms
    ]
    return [Case(name="captured steps, bits", run=partial(check_replays, of=sizes.replays)), *timed]


def _time(bench: Bench, form: Form, setting: Setting) -> dict[str, Any]:
    about: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    pool = bench.timer.pool()  # the graphs of both kinds would each keep memory for all activations
    rivals = {kind: partial(_rival, bench, kind, form, setting, about[kind], pool) for kind in KINDS}
    try:
        with cudnn_tries():
            found = bench.compare(
                rivals, base="dense", warm=False, against=[("search", "dense")], batch=setting.batch,
                cudnn_benchmark=True,
            )  # fmt: skip
    finally:
        if "compiled" in form or form in MODES:
            rivals.clear()
            forget_compiled()
    lines = found["lines"]
    for kind, row in found["rivals"].items():
        about[kind]["images a second"] = setting.batch / row["seconds"]["median"]
        said = [f"{about[kind]['images a second']:.5g} images/s"]
        if about[kind]["peak, bytes"] is not None:
            said.append(f"peak {about[kind]['peak, bytes'] / 2**30:.3g} GiB")
        if about[kind]["graphs"]:
            said.append(f"{about[kind]['graphs']} graphs")
        if about[kind]["skips"]:
            said.append(f"the compiler captured nothing {about[kind]['skips']} times")
        lines.append(f"{kind}: {', '.join(said)}; ready after {about[kind]['preparing, seconds']:.3g} s")
        row.update(about[kind])
    return found


def _rival(bench: Bench, kind: str, form: Form, setting: Setting, about: dict[str, Any], pool: Any) -> Rival:
    if setting.network.name.startswith("torchvision/") and find_spec("torchvision") is None:
        raise NotHere("torchvision is not installed")
    made: list[Any] = []

    def make() -> None:
        made.append(prepared(kind, form, setting, bench.device, bench.timer, pool))

    began = time.monotonic()
    about["peak, bytes"] = bench.timer.peak(make)
    about["preparing, seconds"] = time.monotonic() - began
    (one,) = made
    about["graphs"], about["skips"] = one.graphs, one.skips
    if kind == "search":
        check_search(one.step, one.model)
    how = "a graph's replays" if form.endswith("captured") else "calls from Python"
    return Rival(program=Program(run=one.step, calls=1, how=how), work=least(kind, setting), held=one)
