"""Machine code read back: which instructions a compiled kernel holds, where its loops are, and what they are for.

NVIDIA's SASS (as cuobjdump prints it) and AMD's assembly become the same list of instructions with the places each can
go on to. A loop is a natural loop of that graph: the instructions between a jump back and the place it jumps to, which
every way to the jump passes. Waits that the compiler moved out of line therefore count where they belong.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Instruction", "loops", "main_loop", "matrix_kinds", "read_amdgcn", "read_sass"]

_SASS = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+ +)?([A-Z][\w.]*)([^;/]*)", re.MULTILINE)
_SASS_INTEGER = re.compile(
    r"(IADD|IADD3|IMAD(?!\.MOV)|IMUL|IDP|IDP4A|LEA|LOP|LOP3|PLOP3|SHF|SHL|SHR|PRMT|SEL|ISETP|IMNMX|VIMNMX|VIMNMX3|VIADD"
    r"|VIADDMNMX|IABS|POPC|FLO|BREV|SGXT|BMSK|ISCADD)(\.|$)"
)
_SASS_MATRIX = re.compile(r"(HMMA|IMMA|DMMA|BMMA|QMMA|OMMA|HGMMA|IGMMA|QGMMA|BGMMA|UTC\w*MMA)(\.|$)")
_AMD = re.compile(r"^(?:(\.L\w+):|\t((?:s|v|ds|buffer|global|flat|scratch)_\w+)([^;\n]*))", re.MULTILINE)
_AMD_INTEGER = re.compile(
    r"v_(?!mov_|mfma|smfmac|cvt|accvgpr|readlane|readfirstlane|writelane)\w*_[biu](16|24|32|64)(_|$)"
)


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One machine instruction."""

    name: str
    """With its modifiers, as `HMMA.16816.F32.BF16`."""
    integer: bool
    """Integer arithmetic or logic of the vector units: not uniform or scalar units, loads, moves or conversions."""
    matrix: bool
    """A matrix multiplication."""
    next: tuple[int, ...]
    """Positions in the code that can follow."""


def read_sass(text: str) -> list[Instruction]:
    """The instructions in cuobjdump's output, padding left out.

    Raises:
        LookupError: there are none, or a jump goes nowhere.
    """
    lines = [line for line in _SASS.findall(text) if line[2] != "NOP"]
    place = {int(address, 16): i for i, (address, *_) in enumerate(lines)}
    ordered = sorted(place)
    found = []
    for i, (address, guard, name, operands) in enumerate(lines):
        after = [i + 1] if i + 1 < len(lines) else []
        kind = name.partition(".")[0]
        if kind == "BRA":
            target = re.search(r"0x([0-9a-f]+)", operands)
            if target is None:
                raise LookupError(f"a jump at {address} without an address: {name}{operands}")
            # A jump to padding goes on to what stands behind it.
            to = next((place[at] for at in ordered if at >= int(target[1], 16)), None)
            conditional = bool(guard) or bool(re.search(r"\bU?P\w", operands))
            after = [*([] if to is None else [to]), *(after if conditional else [])]
        elif kind in ("EXIT", "RET") and not guard:
            after = []
        found.append(
            Instruction(
                name=name,
                integer=_SASS_INTEGER.match(name) is not None,
                matrix=_SASS_MATRIX.match(name) is not None,
                next=tuple(after),
            )
        )
    return _some(found, text)


def read_amdgcn(text: str) -> list[Instruction]:
    """The instructions of an AMD kernel's assembly, padding left out.

    Raises:
        LookupError: there are none, or a jump goes nowhere.
    """
    labels: dict[str, int] = {}
    lines: list[tuple[str, str]] = []
    for label, name, operands in _AMD.findall(text):
        if label:
            labels[label] = len(lines)
        elif name != "s_nop":
            lines.append((name, operands.strip()))
    found = []
    for i, (name, operands) in enumerate(lines):
        after = [i + 1] if i + 1 < len(lines) else []
        if name == "s_endpgm":
            after = []
        elif name.startswith(("s_branch", "s_cbranch")):
            if operands not in labels:
                raise LookupError(f"a jump to an unknown place: {name} {operands}")
            after = [labels[operands], *(after if name.startswith("s_cbranch") else [])]
        matrix = name.startswith(("v_mfma", "v_smfmac"))
        integer = _AMD_INTEGER.match(name) is not None
        found.append(Instruction(name=name, integer=integer, matrix=matrix, next=tuple(after)))
    return _some(found, text)


def _some(found: list[Instruction], text: str) -> list[Instruction]:
    if not found:
        raise LookupError(f"no machine instructions in text that begins {text[:200]!r}")
    return found


def _dominators(code: Sequence[Instruction], before: Sequence[Sequence[int]]) -> list[int]:
    """For each position, as bits of an int, the positions that every way to it from the first passes; 0: no way."""
    everywhere = (1 << len(code)) - 1
    known = [1, *[everywhere] * (len(code) - 1)]
    changed = True
    while changed:
        changed = False
        for i in range(1, len(code)):
            meet = everywhere if before[i] else 0
            for j in before[i]:
                meet &= known[j]
            meet |= 1 << i
            if meet != known[i]:
                known[i], changed = meet, True
    return known


def loops(code: Sequence[Instruction]) -> list[frozenset[int]]:
    """The positions of each loop's instructions, the smallest loop first; jumps back to one place make one loop."""
    reached, open_ = {0}, [0]
    while open_:
        for j in code[open_.pop()].next:
            if j not in reached:
                reached.add(j)
                open_.append(j)
    before: list[list[int]] = [[] for _ in code]
    for i in reached:
        for j in code[i].next:
            before[j].append(i)
    dominators = _dominators(code, before)
    found: dict[int, set[int]] = {}
    for i in sorted(reached):
        for head in code[i].next:
            if dominators[i] >> head & 1:
                body = found.setdefault(head, {head})
                open_ = [i]
                while open_:
                    at = open_.pop()
                    if at not in body:
                        body.add(at)
                        open_ += before[at]
    return sorted((frozenset(body) for body in found.values()), key=lambda body: (len(body), min(body)))


def main_loop(code: Sequence[Instruction]) -> list[Instruction] | None:
    """The innermost loop that multiplies matrices, or else the longest one; None where there is no loop."""
    found = loops(code)
    multiplying = [body for body in found if any(code[i].matrix for i in body)]
    body = multiplying[0] if multiplying else found[-1] if found else None
    return None if body is None else [code[i] for i in sorted(body)]


def matrix_kinds(code: Sequence[Instruction]) -> str:
    """The names of the matrix instructions."""
    return ", ".join(dict.fromkeys(one.name for one in code if one.matrix))
