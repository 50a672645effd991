"""How much a program does at a time and with how many warps: a table a kernel, with rows by architecture and shape.

The first row that fits a case counts, of the architecture ("sm_90"), else of its family ("sm", "gfx9"); the
interpreter, which takes milliseconds a step, has rows of its own, so small that small layers reach every loop's second
step. No size changes a result that is promised to the bit. `python -m benchmarks.gpu --tune` tries neighbours on a
device and prints rows to add.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from supermask.kernels.base.launch import interpreted, triton

__all__ = ["INTERPRETED", "Row", "Sizes", "architecture", "fitting", "tried"]

INTERPRETED = "interpreted"

_TRIED: ContextVar[Mapping[str, Mapping[str, int]] | None] = ContextVar("tried", default=None)


class Row(NamedTuple):
    """Sizes by the names that kernels have for them, and the cases that they are for.

    Attributes:
        sizes: constexprs of a kernel, num_warps and num_stages.
        when: what a case must say, by name: a truth value as it is, a number at most.
    """

    sizes: Mapping[str, int]
    when: Mapping[str, int | bool] = {}

    def fits(self, case: Mapping[str, int | bool]) -> bool:
        """Whether it is for `case`."""
        return all(
            case[name] is wanted if isinstance(wanted, bool) else case[name] <= wanted
            for name, wanted in self.when.items()
        )


class Sizes(NamedTuple):
    """The table of a kernel.

    Attributes:
        kernel: its name.
        rows: by architecture, family (how names of architectures begin) or `INTERPRETED`; the last of a family or of
            `INTERPRETED` fits every case.
    """

    kernel: str
    rows: Mapping[str, tuple[Row, ...]]

    def of(self, **case: int | bool) -> Mapping[str, int]:
        """The sizes for `case` on the device that kernels run on."""
        trying = _TRIED.get()
        if trying is not None and self.kernel in trying:
            return trying[self.kernel]
        return self.row(architecture(), case).sizes

    def row(self, name: str, case: Mapping[str, int | bool]) -> Row:
        """The row for `case` on an architecture, or `INTERPRETED`.

        Raises:
            RuntimeError: there is no table for it.
        """
        for known in sorted(self.rows, key=len, reverse=True):
            for row in self.rows[known] if name.startswith(known) else ():
                if row.fits(case):
                    return row
        raise RuntimeError(f"{self.kernel} has no sizes for {name}: it has them for {', '.join(self.rows)}")


def architecture() -> str:
    """Of the device that kernels run on: "sm_90", "gfx942", or `INTERPRETED`."""
    if interpreted():
        return INTERPRETED
    target = triton.runtime.driver.active.get_current_target()
    return f"sm_{target.arch}" if target.backend == "cuda" else str(target.arch).partition(":")[0]


def fitting(count: int, least: int, most: int) -> int:
    """The power of two from `least` that holds `count`, and `most` of a larger one."""
    return min(most, max(least, 1 << (count - 1).bit_length()))


@contextmanager
def tried(kernel: str, sizes: Mapping[str, int]) -> Iterator[None]:
    """Within the block `kernel` has these sizes, whatever its table says: for timing others."""
    token = _TRIED.set({**(_TRIED.get() or {}), kernel: sizes})
    try:
        yield
    finally:
        _TRIED.reset(token)
