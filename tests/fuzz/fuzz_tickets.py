"""Fuzz the reader of tickets for a fixed time: python -m tests.fuzz.fuzz_tickets --seconds 120

The engine is atheris (libFuzzer, guided by the coverage of the reader's modules), the check is tests/fuzz/targets.py,
the start is tests/fuzz/corpus. It ends with a report, and with status 1 if a promise was broken; the shortest input
that broke each is then written to --write, to be committed beside the fix. --collect adds to it the shortest input for
every kind of outcome that the corpus does not have yet.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

CORPUS = Path(__file__).parent / "corpus"
INSTRUMENTED = [
    *("supermask.networks." + name for name in ("anatomy", "architecture")),
    *("supermask.tickets." + name for name in ("assemble", "container", "errors", "fields", "file", "header", "info")),
    *("supermask.tickets." + name for name in ("load", "match", "names", "save", "versions")),
    *("supermask.tickets." + name for name in ("coding.levels", "coding.planes")),
]
_STATUS = re.compile(r"^#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)")
_MOST_LENGTH = 16384  # bytes of an input
_MOST_MEMORY = 2048  # MiB of the process
_MOST_SECONDS = 60  # for one input


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fuzz the reader of tickets.")
    parser.add_argument("--seconds", type=int, default=120, help="of fuzzing")
    parser.add_argument("--runs", type=int, default=-1, help="end after so many inputs, too")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer; on a machine it decides all but the time")
    parser.add_argument("--corpus", type=Path, action="append", help="folders of inputs to start from")
    parser.add_argument("--write", type=Path, default=CORPUS, help="folder for what is found")
    parser.add_argument("--collect", action="store_true", help="write inputs with new outcomes, too")
    parser.add_argument("--grown", type=Path, help="folder of the engine's own corpus, to go on from in a later run")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        return _fuzz(options)
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("fuzzing needs atheris: python -m pip install atheris==3.0.0", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        return _run(options, Path(folder))


def _run(options: argparse.Namespace, folder: Path) -> int:
    """Start the engine in a process of its own, which it ends as it likes, and report on it."""
    passed = [f"--seconds={options.seconds}", f"--runs={options.runs}", f"--seed={options.seed}"]
    passed += [f"--corpus={path}" for path in options.corpus or [CORPUS]]
    passed += [f"--grown={options.grown or folder / 'grown'}", f"--worker={folder / 'found'}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.fuzz.fuzz_tickets", *passed]
    found, last, first, tail = folder / "found", None, None, []
    found.mkdir()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace") as engine:
        assert engine.stderr is not None
        for line in engine.stderr:
            tail = [*tail[-30:], line]
            if (status := _STATUS.match(line)) is None:
                if line.startswith(("broken", "stat::", "==", "ERROR", "SUMMARY")):
                    print(line, end="", flush=True)
                continue
            last = status
            first = first or (status if status[2] == "INITED" else None)
            if status[2] == "pulse":
                print(line, end="", flush=True)
    if engine.returncode or last is None or first is None:
        print("".join(tail), f"the engine ended with status {engine.returncode}", sep="\n")
    if last is not None and first is not None:
        print(f"runs {last[1]}; coverage {first[3]} -> {last[3]} edges, {first[4]} -> {last[4]} features; "
              f"corpus {first[5]} -> {last[5]} files, {last[6]}")  # fmt: skip
    broken = sorted(found.glob("broken_*"))
    written = broken + (sorted(found.glob("outcome_*")) if options.collect else [])
    crashes = sorted([*found.glob("crash-*"), *found.glob("timeout-*"), *found.glob("oom-*")])
    options.write.mkdir(parents=True, exist_ok=True)
    for path in [*written, *crashes]:
        (options.write / path.name).write_bytes(path.read_bytes())
    print(f"{len(broken)} kinds of broken promises, {len(crashes)} crashes; {len(written)} files written")
    return 1 if broken or crashes or engine.returncode else 0


def _fuzz(options: argparse.Namespace) -> int:
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz import targets
    from tests.fuzz.mutations import mutate

    found: Path = options.worker
    shortest: dict[str, int] = {}
    known = {targets.outcome(path.read_bytes()) for folder in options.corpus for path in folder.iterdir()}

    def keep(prefix: str, kind: str, data: bytes) -> None:
        if len(data) < shortest.get(kind, _MOST_LENGTH + 1):
            shortest[kind] = len(data)
            (found / f"{prefix}_{targets.named(kind)}").write_bytes(data)

    def run(data: bytes) -> None:
        try:
            outcome = targets.check(data)
        except AssertionError as error:
            kind = targets.kind_of(error)
            if kind not in shortest:
                print(f"broken: {error}", file=sys.stderr, flush=True)
            keep("broken", kind, data)
        else:
            if outcome not in known:
                keep("outcome", outcome, data)

    def custom_mutator(data: bytes, most: int, seed: int) -> bytes:
        changed = mutate(data, Random(seed), lambda part: atheris.Mutate(part, max(len(part) + 64, 64)))
        return changed[:most]

    options.grown.mkdir(parents=True, exist_ok=True)
    engine = [
        sys.argv[0], str(options.grown), *map(str, options.corpus), f"-max_total_time={options.seconds}",
        f"-runs={options.runs}", f"-seed={options.seed}", f"-max_len={_MOST_LENGTH}", f"-rss_limit_mb={_MOST_MEMORY}",
        f"-timeout={_MOST_SECONDS}", f"-artifact_prefix={found}/", "-print_final_stats=1", "-len_control=0",
    ]  # fmt: skip
    atheris.Setup(engine, run, custom_mutator=custom_mutator)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
