"""Every kernel compiled ahead of time for four GPUs, on a machine that needs none, and what the code it became costs.

    python -m benchmarks.aot             a row a kernel and target, --all for every configuration
    python -m benchmarks.aot --changed   compiles only what changed since the table of this Triton was written
    python -m benchmarks.aot --write     docs/resources/triton-VERSION.md and .json, which tests compare with

It exits with 1 where a kernel spills, or lacks the matrix instructions it should have.
"""

import argparse
import json
import os
import sys
from importlib.metadata import version

from rich.console import Console

from benchmarks.aot.cases import CASES
from benchmarks.aot.resources import TARGETS, AotError
from benchmarks.aot.sources import digest
from benchmarks.aot.stored import Row, Stored, of_installed, ordered, path_of
from benchmarks.aot.table import as_markdown, as_table, representatives
from benchmarks.aot.together import compile_cases
from supermask.kernels.base.launch import interpreted, triton


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aot", description="Compile every kernel without a GPU.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--case", action="append", choices=CASES, help="only these kernels (repeatable)")
    which.add_argument(
        "--changed",
        action="store_true",
        help="compile only the cases whose sources changed since the table of the installed Triton was written, and "
        "take the rows of the others from it",
    )
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this target (repeatable)")
    parser.add_argument("--all", action="store_true", help="every configuration, not one of each variant")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that compile")
    parser.add_argument("--json", action="store_true", help="print a list of objects, all configurations, not a table")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write the table of the installed Triton in docs/resources; with --case, only the rows of that case",
    )
    return parser


def _write(stored: Stored) -> None:
    path = path_of(stored.triton)
    path.parent.mkdir(exist_ok=True)
    stored.write(path)
    path.with_suffix(".md").write_text(as_markdown(stored))


def _print(rows: list[Row], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    width = None if sys.stdout.isatty() else 300 if options.all else 190
    Console(width=width).print(as_table(rows if options.all else representatives(rows), config=options.all))


def main() -> int:
    """Exit status 0: compiled without spills, matrix instructions where they should be; 1: not so; 2: not compiled."""
    parser = _parser()
    options = parser.parse_args()
    if triton is None or interpreted():
        missing = triton is None
        why = "triton is not installed here" if missing else "TRITON_INTERPRET is set, so nothing compiles: unset it"
        print(f"benchmarks.aot: {why}", file=sys.stderr)
        return 2
    if options.write and options.target:
        parser.error("--write writes rows of every target: leave --target out")
    before = of_installed() or Stored(triton=version("triton"), digests={}, rows=[])
    digests = {name: digest(call) for name, call in CASES.items()}
    changed = [name for name in CASES if digests[name] != before.digests.get(name)]
    names = changed if options.changed else options.case or list(CASES)
    try:
        rows = compile_cases(names, options.target or TARGETS, options.jobs)
    except AotError as error:
        print(f"benchmarks.aot: {error}", file=sys.stderr)
        return 2
    if options.changed or options.write:
        kept = (row for row in before.rows if row["case"] in CASES and row["case"] not in names)
        rows = ordered([*rows, *(row for row in kept if row["target"] in (options.target or TARGETS))])
    if options.write:
        unchanged = {name: of for name, of in before.digests.items() if name in CASES}
        _write(Stored(triton=before.triton, digests=unchanged | {name: digests[name] for name in names}, rows=rows))
    else:
        _print(rows, options)
    return int(any(row["spills"] or row["matrix_missing"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
