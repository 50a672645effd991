"""Every fault that a command is put to: what it is given, or what is done to it, and how it may end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.supermask.commands.sweep.rows import DOWNLOADED, Row, Words, arguments, out_name

READS_TICKETS = {"inspect", "verify", "diff", "convert", "eval"}
WRITES = {"recipe", "grid", "convert", "report"}
FLAG = {"recipe": "--training.epochs", "grid": "--seeds", "eval": "--device", "convert": "--input-shape"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A column of the table.

    Attributes:
        name: its heading.
        given: all arguments of a command, or None where the fault cannot befall it.
        status: that it ends with.
        how: what is done to it (disturbed.py).
        parsed: the command line itself is wrong, and tyro may say so in a box.
        stays: what was saved by then stays.
    """

    name: str
    given: Callable[[Row, Path], Words | None]
    status: int = 2
    how: str = ""
    parsed: bool = False
    stays: bool = False

    @property
    def late(self) -> bool:
        """Whether a run has begun by then, which takes most of the sweep's time."""
        return self.how.split(" ")[-1] in ("works", "writes") or self.how.startswith(("limit", "later"))


def whole(row: Row, inputs: Path) -> Words:
    """Nothing is wrong with what is given."""
    return arguments(row, inputs / "whole")


def planned(row: Row, inputs: Path) -> Words | None:
    """Something short that prints: of a run its plan."""
    if row.kind == "convert" and row.words[-1] not in ("raw", "ans", "state-dict"):
        return None
    return whole(row, inputs) + (["--dry-run"] if row.kind in ("recipe", "grid") else [])


def writing(row: Row, inputs: Path) -> Words | None:
    """Only of commands that write."""
    return whole(row, inputs) if row.kind in WRITES else None


def writing_soon(row: Row, inputs: Path) -> Words | None:
    """And begin to soon: compilers and exporters write last."""
    return None if row.words[-1:] in (("export",), ("aoti",), ("onnx",)) else writing(row, inputs)


def training(row: Row, inputs: Path) -> Words | None:
    """Only of commands that train."""
    return whole(row, inputs) if row.kind in ("recipe", "grid") else None


def reading(row: Row, inputs: Path) -> Words | None:
    """Only of commands that write nothing."""
    return whole(row, inputs) if row.kind not in WRITES else None


def damaged(name: str) -> Callable[[Row, Path], Words | None]:
    """What is read is of that damage."""

    def given(row: Row, inputs: Path) -> Words | None:
        if row.kind == "grid":
            return [*flags_but(row, "--epochs"), "--data", "cifar10", "--root", inputs / name / "cifar10"]
        if row.kind == "recipe" and row.data not in DOWNLOADED:
            return None
        if row.kind == "verify":
            return [inputs / "whole" / "ticket", inputs / name / "ticket"]
        return arguments(row, inputs / name)

    return given


def resumed(row: Row, inputs: Path) -> Words | None:
    """A run goes on whose configuration is random bytes."""
    return [*out_of(row, inputs, inputs / "random" / "run"), "--resume"] if row.kind == "recipe" else None


def elsewhere(out: str) -> Callable[[Row, Path], Words | None]:
    """What is written goes to OUT, below the inputs or not."""

    def given(row: Row, inputs: Path) -> Words | None:
        if row.kind not in WRITES:
            return None
        there = inputs / "whole" if row.kind == "convert" and out == "whole/ticket" else inputs / out
        return out_of(row, inputs, there)

    return given


def out_of(row: Row, inputs: Path, out: Path) -> Words:
    """Nothing is wrong, and `out` is what is written to."""
    return [out if word == out_name(row) else word for word in whole(row, inputs)]


def flags_but(row: Row, name: str) -> Words:
    """The flags of a row without one and its value."""
    flags = list(row.flags)
    at = flags.index(name)
    return flags[:at] + flags[at + 2 :]


def unknown_flag(row: Row, inputs: Path) -> Words:
    return [*whole(row, inputs), "--nonsense"]


def wrong_type(row: Row, inputs: Path) -> Words | None:
    """A word in the place of a number, or of a choice."""
    flag = {**FLAG, "eval": "--data"}.get(row.kind)
    return [*whole(row, inputs), flag, "x"] if flag else None


def out_of_range(row: Row, inputs: Path) -> Words | None:
    value = {"eval": "tpu"}.get(row.kind, 0)
    return [*whole(row, inputs), FLAG[row.kind], value] if row.kind in FLAG else None


def value_missing(row: Row, inputs: Path) -> Words:
    """A flag without its value; of a command that takes files, no file."""
    return [*whole(row, inputs), FLAG[row.kind]] if row.kind in ("recipe", "grid") else []


def module_missing(row: Row, inputs: Path) -> Words:
    """It is to import what is not there."""
    return [*whole(row, inputs), "--import", "no_such_module"]


def device(name: str) -> Callable[[Row, Path], Words | None]:
    """Another device; a plan is refused as the run would be."""

    def given(row: Row, inputs: Path) -> Words | None:
        flag = {"recipe": "--run.device", "grid": "--device", "eval": "--device"}.get(row.kind)
        return [*(planned(row, inputs) or []), flag, name] if flag else None

    return given


FAULTS = [
    Fault(name="none", given=planned, status=0, stays=True),
    Fault(name="unknown flag", given=unknown_flag, parsed=True),
    Fault(name="wrong type", given=wrong_type, parsed=True),
    Fault(name="out of range", given=out_of_range, parsed=True),
    Fault(name="value missing", given=value_missing, parsed=True),
    Fault(name="no such module", given=module_missing),
    Fault(name="no such GPU", given=device("cuda:99")),
    Fault(name="other device", given=device("mps")),
    Fault(name="file missing", given=damaged("nowhere")),
    Fault(name="folder for file", given=damaged("folder")),
    Fault(name="random bytes", given=damaged("random")),
    Fault(name="empty file", given=damaged("empty")),
    Fault(name="truncated", given=damaged("truncated")),
    Fault(name="run damaged", given=resumed),
    Fault(name="output is there", given=elsewhere("whole/ticket")),
    Fault(name="output below a file", given=elsewhere("whole/ticket/out")),
    Fault(name="output in /proc", given=elsewhere("/proc/out")),
    Fault(name="disk full", given=writing_soon, how="limit 100"),
    Fault(name="disk full later", given=training, how="later 1", stays=True),
    *(
        Fault(name=f"{name} {when}", given=given, how=f"{name} {how}", status=status, stays=how == "works")
        for name, status in (("SIGINT", 130), ("SIGTERM", 143))
        for when, how, given in (
            ("at begin", "begins", whole),
            ("in reading", "reads", reading),
            ("in writing", "writes", writing),
            ("in training", "works", training),
        )
    ),
    Fault(name="reader left", given=planned, how="unread", status=141, stays=True),
    Fault(name="help unread", given=lambda row, inputs: ["--help"], how="unread", status=141),
    Fault(name="output full", given=planned, how="full", status=1, stays=True),
]
