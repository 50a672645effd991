"""Every kernel compiled ahead of time for four GPUs, on a machine that needs none, and what the code it became costs.

    python -m kernels.aot           a row a kernel and target, --all for every configuration
    python -m kernels.aot --write   docs/resources.md and docs/resources.json, which tests compare with

The ops' own launchers are called with ordinary CPU tensors. `kernels._launch.launcher` hands each start to Triton's
`warmup`, and a driver that only names its target stands in for the device's, so a kernel is compiled with the
signature, the specialisation and the options that a real start would give it, and never run. Outputs therefore hold
nothing, and a case (kernels/aot_cases.py) must not look at them.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from importlib.metadata import version
from io import StringIO
from itertools import product
from typing import Any

from rich.console import Console

from kernels._launch import interpreted, launcher, triton
from kernels.aot_cases import CASES
from kernels.aot_resources import TARGETS, AotError, Resources, resources_of
from kernels.aot_table import DOCS, as_markdown, as_table, ordered, read_json, representatives, write_json

__all__ = ["TARGETS", "AotError", "Resources", "compile_through"]


class _NoDevice:
    """As much of a Triton driver as compiling takes."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> Any:
        return self  # kernels keep what they compiled by device, and so apart from those of a real one

    def get_current_stream(self, device: Any) -> int:
        return 0


@contextmanager
def _active(device: _NoDevice) -> Iterator[None]:
    from triton.runtime import driver

    before = driver._active  # `driver.active` would look for a real one, and raise without a GPU
    driver.set_active(device)
    try:
        yield
    finally:
        driver.set_active(before)


@contextmanager
def _ptxas_log() -> Iterator[StringIO]:
    """What ptxas says of the kernels compiled within the block: the only account that tells spills from a stack."""
    knobs = triton.knobs
    with knobs.compilation.scope(), knobs.nvidia.scope(), redirect_stdout(StringIO()) as log:
        knobs.compilation.always_compile = True  # a kernel out of the cache comes without a log
        knobs.nvidia.dump_ptxas_log = True
        yield log


def compile_through(call: Callable[[], object], target: str) -> list[Resources]:
    """Compile for `target` every kernel that `call` starts, each distinct configuration once.

    Args:
        call: calls launchers with CPU tensors.
        target: a key of `TARGETS`.

    Raises:
        AotError: a kernel is rejected by the compiler, or its resources cannot be read.
        RuntimeError: Triton is missing, or interprets.
    """
    if triton is None:
        raise RuntimeError("compiling needs triton: pip install triton (Linux)")
    if interpreted():
        raise RuntimeError("TRITON_INTERPRET is set, and interpreted kernels are not compiled: unset it")
    from triton.backends.compiler import GPUTarget

    device = _NoDevice(GPUTarget(*TARGETS[target]))
    started: list[Any] = []
    found: dict[str, Resources] = {}

    def compile_one(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], meta: dict[str, Any]) -> None:
        started.append(kernel)
        try:
            with _ptxas_log() as log:
                binary = kernel.warmup(*args, grid=grid, **meta)
        except Exception as error:
            raise AotError(f"{kernel.__name__} does not compile for {target}: {_chain(error)}") from error
        if binary.hash not in found:
            found[binary.hash] = resources_of(binary, target, log.getvalue())

    try:
        with _active(device), launcher(compile_one):
            call()
    finally:
        for kernel in started:
            kernel.device_caches.pop(device, None)
    return list(found.values())


def _chain(error: BaseException | None) -> str:
    """What an error says and what its causes say: Triton names the place first and the mistake last."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__
    return "\n".join(said)


def _compile_case(target: str, name: str) -> list[Resources]:
    try:
        return compile_through(CASES[name], target)
    except Exception as error:
        # In words: this runs in a worker process, and not every compiler error survives the way back.
        raise AotError(f"case {name!r} on {target}: {error}") from None


def _write(rows: list[dict[str, Any]], *, partial: bool) -> None:
    """docs/resources.json and .md; `partial`: with the rows there of all other kernels, if the versions agree."""
    path, versions = DOCS / "resources.json", {package: version(package) for package in ("torch", "triton")}
    if partial:
        said, before = read_json(path)
        if {package: said[package] for package in versions} != versions:
            raise SystemExit(f"kernels.aot: {path} was written with other versions than {versions}: leave --case out")
        compiled = {row["kernel"] for row in rows}
        rows = ordered([*rows, *(row for row in before.values() if row["kernel"] not in compiled)])
    write_json(path, rows, versions)
    (DOCS / "resources.md").write_text(as_markdown(rows, versions))


def main() -> int:
    """Exit status 0: compiled without spills, matrix instructions where they should be; 1: not so; 2: not compiled."""
    parser = argparse.ArgumentParser(prog="python -m kernels.aot", description="Compile every kernel without a GPU.")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this target (repeatable)")
    parser.add_argument("--case", action="append", choices=CASES, help="only these kernels (repeatable)")
    parser.add_argument("--all", action="store_true", help="every configuration, not one of each variant")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that compile")
    parser.add_argument("--json", action="store_true", help="print a list of objects, all configurations, not a table")
    parser.add_argument(
        "--write", action="store_true", help="write docs/resources.md and .json; with --case, the rows of that case"
    )
    options = parser.parse_args()
    if triton is None or interpreted():
        missing = triton is None
        why = "triton is not installed here" if missing else "TRITON_INTERPRET is set, so nothing compiles: unset it"
        print(f"kernels.aot: {why}", file=sys.stderr)
        return 2
    if options.write and options.target:
        parser.error("--write writes rows of every target: leave --target out")
    # Fresh processes: forking one whose libraries have started threads can hang.
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_compile_case, *job) for job in product(options.target or TARGETS, options.case or CASES)]
    failures = [job.exception() for job in jobs if job.exception() is not None]
    if failures:
        print(*(f"kernels.aot: {failure}" for failure in failures), sep="\n", file=sys.stderr)
        return 2
    rows = [asdict(row) for job in jobs for row in job.result()]
    rows = ordered(rows)
    if options.write:
        _write(rows, partial=bool(options.case))
    elif options.json:
        print(json.dumps(rows, indent=1))
    else:
        width = None if sys.stdout.isatty() else 300 if options.all else 190
        Console(width=width).print(as_table(rows if options.all else representatives(rows), config=options.all))
    return int(any(row["spills"] or row["matrix_missing"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
