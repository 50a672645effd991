"""What a compiled kernel costs, read from what the compiler left: registers, memory, instructions."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.aot.about import ABOUT, Known
from benchmarks.aot.code import Instruction, main_loop, matrix_kinds, read_amdgcn, read_sass
from benchmarks.aot.limits import occupancy
from supermask.kernels.base.launch import triton

__all__ = ["TARGETS", "AotError", "Resources", "resources_of"]

# What Triton calls backend, architecture and threads in a warp.
TARGETS: dict[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}


class AotError(RuntimeError):
    """A kernel that does not compile, or machine code whose resources could not be read."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one compiled kernel costs on one target."""

    kernel: str
    """Its name, as `pack`."""
    target: str
    """A key of `TARGETS`."""
    config: str
    """What the compiler knew: each argument's type (%16 where divisible by 16) or value, and the number of warps."""
    registers: int
    """Registers a thread."""
    spills: int
    """Bytes a thread keeps in memory for want of registers (four for each register spilled, on AMD)."""
    shared: int
    """Bytes of shared memory a program."""
    instructions: int
    """Machine instructions in the code, padding left out."""
    fused: int
    """Of these, float32 multiply-adds that round once where PyTorch rounds twice (or that divide integers, on AMD)."""
    matrix: int
    """Of these, matrix multiplications."""
    matrix_kind: str
    """Their names."""
    occupancy: float
    """An upper bound on the resident warps, over those that a multiprocessor can hold (benchmarks/aot/limits.py)."""
    limited_by: str
    """What sets that bound."""
    variant: str = ""
    """Which of the kernel's variants (benchmarks/aot/cases.py) the configuration is."""
    edges: float | None = None
    """Edges a program deals with in one iteration of its main loop; without a loop, at all. None: not stated."""
    per_edge: float | None = None
    """Instructions that a warp issues there, times the threads that issue them, over `edges`."""
    integer_per_edge: float | None = None
    """Of these, integer arithmetic and logic of the vector units."""
    bytes_per_edge: float | None = None
    """Bytes of device memory that the algorithm moves an edge."""
    matrix_missing: bool = False
    """Whether matrix instructions should be there (in the main loop, if there is one) and are not."""


def kernel_name(function: Any) -> str:
    """What a kernel is called in the table: `pack` for `_pack_kernel`."""
    return str(function.__name__).removeprefix("_").removesuffix("_kernel")


def resources_of(binary: Any, target: str, log: str) -> Resources:
    """Of one kernel.

    Args:
        binary: what Triton compiled.
        target: a key of `TARGETS`.
        log: what ptxas said of it (not read for AMD).

    Raises:
        AotError: the code cannot be read.
    """
    function = binary.src.fn
    kernel = kernel_name(function)
    backend, _, threads = TARGETS[target]
    try:
        code = _sass(binary) if backend == "cuda" else read_amdgcn(binary.asm["amdgcn"])
        registers, spills = _nvidia(log) if backend == "cuda" else _amd(binary.asm["amdgcn"])
    except (OSError, RuntimeError, subprocess.SubprocessError, LookupError) as error:
        raise AotError(f"cannot read the resources of {kernel} on {target}: {error}") from error
    warps, shared = binary.metadata.num_warps, binary.metadata.shared
    fused = re.compile(r"FFMA" if backend == "cuda" else r"v_(pk_)?(fma|mad|mac)\w*_f32")
    bound, limited_by = occupancy(
        target,
        warps=warps,
        threads=threads,
        registers=registers,
        shared=shared,
        tensor_columns=getattr(binary.metadata, "tmem_size", 0),
    )
    return Resources(
        kernel=kernel,
        target=target,
        config=_config(binary),
        registers=registers,
        spills=spills,
        shared=shared,
        instructions=len(code),
        fused=sum(fused.match(one.name) is not None for one in code),
        matrix=sum(one.matrix for one in code),
        matrix_kind=matrix_kinds(code),
        occupancy=round(bound, 4),
        limited_by=limited_by,
        **_per_edge(kernel, _known(binary), code, warps * threads),
    )


def _per_edge(kernel: str, known: Known, code: list[Instruction], threads: int) -> dict[str, Any]:
    """What `Resources` says an edge, for a program of `threads` threads."""
    about = ABOUT.get(kernel)
    if about is None:
        return {}
    if about.edges is None or about.bytes is None:
        return {"variant": about.variant(known)}
    part = main_loop(code) if about.loop else code
    if part is None:
        raise AotError(f"{kernel} has no loop in its machine code, and benchmarks/aot/cases.py says that it has one")
    edges = about.edges(known)
    return {
        "variant": about.variant(known),
        "edges": edges,
        "per_edge": round(len(part) * threads / edges, 3),
        "integer_per_edge": round(sum(one.integer for one in part) * threads / edges, 3),
        "bytes_per_edge": round(about.bytes(known), 4),
        "matrix_missing": about.matrix(known) and not any(one.matrix for one in part),
    }


def _known(binary: Any) -> dict[str, Any]:
    source = binary.src
    values = {path[0]: value for path, value in source.constants.items() if len(path) == 1}
    return {name: values.get(i, kind) for i, (name, kind) in enumerate(source.signature.items())}


def _config(binary: Any) -> str:
    source = binary.src
    divisible = {path[0] for path, facts in source.attrs.items() if ["tt.divisibility", 16] in facts}
    constants = {path[0] for path in source.constants if len(path) == 1}
    words = []
    for i, (parameter, value) in enumerate(_known(binary).items()):
        name = parameter.removesuffix("_ptr")
        words.append(f"{name}={value}" if i in constants else f"{name}:{value}{'%16' if i in divisible else ''}")
    return " ".join([*words, f"warps={binary.metadata.num_warps}"])


def _numbers(pattern: str, text: str) -> list[int]:
    found = re.findall(pattern, text)
    if not found:
        raise LookupError(f"no match for {pattern!r} in text that begins {text[:200]!r}")
    return [int(number) for number in found]


def _sass(binary: Any) -> list[Instruction]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(binary.asm["cubin"])
        tool = triton.knobs.nvidia.cuobjdump.path
        return read_sass(subprocess.run([tool, "-sass", path], check=True, capture_output=True, text=True).stdout)


def _nvidia(log: str) -> tuple[int, int]:
    """Registers a thread, bytes spilled."""
    return max(_numbers(r"Used (\d+) registers", log)), sum(_numbers(r"(\d+) bytes spill stores", log))


def _amd(text: str) -> tuple[int, int]:
    """Registers a thread, bytes spilled."""
    spilled = _numbers(r"\.vgpr_spill_count: +(\d+)", text) + _numbers(r"\.sgpr_spill_count: +(\d+)", text)
    return max(_numbers(r"\.vgpr_count: +(\d+)", text)), 4 * sum(spilled)
