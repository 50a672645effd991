"""Every kernel compiled ahead of time for four GPUs, on a machine that needs none, and what the code it became costs.

    python -m benchmarks.aot           a row a kernel and target, --all for every configuration
    python -m benchmarks.aot --write   docs/resources.md and docs/resources.json, which tests compare with

It exits with 1 where a kernel spills, or lacks the matrix instructions it should have.
"""

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from itertools import product
from typing import Any

from rich.console import Console

from benchmarks.aot.cases import CASES
from benchmarks.aot.compile import compile_through
from benchmarks.aot.resources import TARGETS, AotError, Resources
from benchmarks.aot.table import DOCS, as_markdown, as_table, ordered, read_json, representatives, write_json
from supermask.kernels.base.launch import interpreted, triton


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
            raise SystemExit(
                f"benchmarks.aot: {path} was written with other versions than {versions}: leave --case out"
            )
        compiled = {row["kernel"] for row in rows}
        rows = ordered([*rows, *(row for row in before.values() if row["kernel"] not in compiled)])
    write_json(path, rows, versions)
    (DOCS / "resources.md").write_text(as_markdown(rows, versions))


def main() -> int:
    """Exit status 0: compiled without spills, matrix instructions where they should be; 1: not so; 2: not compiled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aot", description="Compile every kernel without a GPU.")
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
        print(f"benchmarks.aot: {why}", file=sys.stderr)
        return 2
    if options.write and options.target:
        parser.error("--write writes rows of every target: leave --target out")
    # Fresh processes: forking one whose libraries have started threads can hang.
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_compile_case, *job) for job in product(options.target or TARGETS, options.case or CASES)]
    failures = [job.exception() for job in jobs if job.exception() is not None]
    if failures:
        print(*(f"benchmarks.aot: {failure}" for failure in failures), sep="\n", file=sys.stderr)
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
