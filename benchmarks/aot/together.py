"""Cases compiled side by side, in processes of their own."""

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import product

from benchmarks.aot.cases import CASES
from benchmarks.aot.compile import compile_through
from benchmarks.aot.resources import AotError
from benchmarks.aot.stored import Row, ordered

__all__ = ["compile_cases"]


def _compile_case(target: str, name: str) -> list[Row]:
    try:
        return [{"case": name, **asdict(row)} for row in compile_through(CASES[name], target)]
    except Exception as error:
        # In words: not every compiler error survives the way back from a process.
        raise AotError(f"case {name!r} on {target}: {error}") from None


def compile_cases(names: Iterable[str], targets: Iterable[str], jobs: int) -> list[Row]:
    """The rows of all configurations that cases start, on each target.

    Args:
        names: of cases.
        targets: keys of `benchmarks.aot.resources.TARGETS`.
        jobs: how many processes compile.

    Raises:
        AotError: a case does not compile; it says so of all that do not.
    """
    # Fresh processes: forking one whose libraries have started threads can hang.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = [pool.submit(_compile_case, *job) for job in product(targets, names)]
    failures = [str(job.exception()) for job in made if job.exception() is not None]
    if failures:
        raise AotError("\n".join(failures))
    return ordered(row for job in made for row in job.result())
