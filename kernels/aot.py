"""Every kernel compiled ahead of time for four GPUs, on a machine that needs none, and what the code it became costs.

    python -m kernels.aot

The ops' own launchers are called with ordinary CPU tensors. `kernels._launch.launcher` hands each start to Triton's
`warmup`, and a driver that only names its target stands in for the device's, so a kernel is compiled with the
signature, the specialisation and the options that a real start would give it, and never run. Outputs therefore hold
nothing, and a case must not look at them.
"""

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, fields
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kernels import bits, packed, philox, subnet, threshold
from kernels._launch import interpreted, launcher, triton

__all__ = ["CASES", "TARGETS", "AotError", "Resources", "compile_through"]

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
    """Module and name, as `bits._pack_kernel`."""
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
            found[binary.hash] = _resources(binary, target, log.getvalue())

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


def _resources(binary: Any, target: str, log: str) -> Resources:
    function = binary.src.fn
    kernel = f"{function.module.removeprefix('kernels.')}.{function.__name__}"
    try:
        cost = _nvidia(binary, log) if TARGETS[target][0] == "cuda" else _amd(binary)
    except (OSError, RuntimeError, subprocess.SubprocessError, LookupError) as error:
        raise AotError(f"cannot read the resources of {kernel} on {target}: {error}") from error
    return Resources(kernel=kernel, target=target, config=_config(binary), shared=binary.metadata.shared, **cost)


def _config(binary: Any) -> str:
    source = binary.src
    divisible = {path[0] for path, facts in source.attrs.items() if ["tt.divisibility", 16] in facts}
    known = {path[0]: value for path, value in source.constants.items() if len(path) == 1}
    words = []
    for i, (parameter, kind) in enumerate(source.signature.items()):
        name = parameter.removesuffix("_ptr")
        if i in known:
            words.append(f"{name}={known[i]}")
        else:
            words.append(f"{name}:{kind}{'%16' if i in divisible else ''}")
    return " ".join([*words, f"warps={binary.metadata.num_warps}"])


def _numbers(pattern: str, text: str) -> list[int]:
    found = re.findall(pattern, text)
    if not found:
        raise LookupError(f"no match for {pattern!r} in text that begins {text[:200]!r}")
    return [int(number) for number in found]


def _instructions(pattern: str, text: str, padding: str, fused: str) -> dict[str, int]:
    code = [name for name in re.findall(pattern, text, re.MULTILINE) if name != padding]
    if not code:
        raise LookupError(f"no machine instructions in text that begins {text[:200]!r}")
    return {"instructions": len(code), "fused": sum(re.match(fused, name) is not None for name in code)}


def _nvidia(binary: Any, log: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(binary.asm["cubin"])
        tool = triton.knobs.nvidia.cuobjdump.path
        text = subprocess.run([tool, "-sass", path], check=True, capture_output=True, text=True).stdout
    return {
        "registers": max(_numbers(r"Used (\d+) registers", log)),
        "spills": sum(_numbers(r"(\d+) bytes spill stores", log)),
        **_instructions(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ +)?([A-Z]\w*)", text, "NOP", r"FFMA"),
    }


def _amd(binary: Any) -> dict[str, int]:
    text = binary.asm["amdgcn"]
    spilled = _numbers(r"\.vgpr_spill_count: +(\d+)", text) + _numbers(r"\.sgpr_spill_count: +(\d+)", text)
    code = r"^\t((?:s|v|ds|buffer|global|flat|scratch)_\w+)"
    return {
        "registers": max(_numbers(r"\.vgpr_count: +(\d+)", text)),
        "spills": 4 * sum(spilled),
        **_instructions(code, text, "s_nop", r"v_(pk_)?(fma|mad|mac)\w*_f32"),
    }


_CPU = torch.device("cpu")
_Theta = tuple[Tensor, Tensor | None, Tensor | None, int, int, int]  # in the order of the op schemas
# The compiler tells apart sizes divisible by 16, sizes of 1 and others, and seeds of 32 bits and of 64.
_LAYERS = [(512, 512, 7), (512, 512, 1 << 40), (10, 27, 7), (1, 1, 7)]


def _bits(rows: int, cols: int) -> Tensor:
    return torch.zeros(rows, bits.words_per_row(cols), dtype=torch.int32)


def _philox() -> None:
    for rows, cols, seed in _LAYERS:
        philox._sign_words_triton(seed, 1, 0, rows, cols, _CPU)
        philox._uniform_triton(seed, 1, 0, -1.0, 2.0, rows, cols, _CPU)
        philox._normal_triton(seed, 1, 0, 1.0, rows, cols, _CPU)


def _bit_ops() -> None:
    for rows, cols, _ in _LAYERS:
        bits._pack_triton(torch.zeros(rows, cols, dtype=torch.bool))
        bits._unpack_triton(_bits(rows, cols), cols)
        bits._popcount_triton(_bits(rows, cols))


def _weights(each: Callable[[int, int, _Theta, torch.dtype, bool], object]) -> None:
    """`each(rows, cols, theta, dtype, extras)` for every kind of layer; for the first also without extras, and with
    every source of weights in 32 and 16 bits."""
    for rows, cols, seed in _LAYERS:
        each(rows, cols, (torch.ones(1), None, None, seed, 1, 0), torch.float32, True)
    rows, cols, seed = _LAYERS[0]
    each(rows, cols, (torch.ones(1), None, None, seed, 1, 0), torch.float32, False)
    for signs, base in ((None, None), (_bits(rows, cols), None), (None, torch.zeros(rows, cols))):
        for dtype in (torch.float32, torch.bfloat16):
            each(rows, cols, (torch.ones(1), signs, base, seed, 1, 0), dtype, True)


def _select() -> None:
    scores = [torch.zeros(rows, cols) for rows, cols, _ in _LAYERS]
    survivors = [None, *(_bits(rows, cols) for rows, cols, _ in _LAYERS[1:])]
    for absolute in (True, False):
        threshold._select_triton(scores, torch.ones(len(scores), dtype=torch.int64), survivors, absolute)


def _subnet() -> None:
    def each(rows: int, cols: int, theta: _Theta, dtype: torch.dtype, extras: bool) -> None:
        scores, absolute = torch.zeros(rows, cols), dtype is torch.float32
        survivors, ever = (_bits(rows, cols), _bits(rows, cols)) if extras else (None, None)
        tau, last_tied = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int64)
        subnet._subnet_triton(scores, tau, last_tied, survivors, *theta, absolute, dtype, ever)
        subnet._subnet_backward_triton(scores.to(dtype), scores, survivors, *theta, absolute)

    _weights(each)


def _packed_weight() -> None:
    _weights(
        lambda rows, cols, theta, dtype, _: packed._packed_weight_triton(_bits(rows, cols), [rows, cols], *theta, dtype)
    )


CASES: dict[str, Callable[[], object]] = {
    "philox": _philox,
    "bits": _bit_ops,
    "select": _select,
    "subnet": _subnet,
    "packed_weight": _packed_weight,
}
"""Launcher calls that between them start every kernel in every configuration the launchers choose."""


def _compile_case(target: str, name: str) -> list[Resources]:
    try:
        return compile_through(CASES[name], target)
    except Exception as error:
        # In words: this runs in a worker process, and not every compiler error survives the way back.
        raise AotError(f"case {name!r} on {target}: {error}") from None


def _table(found: list[Resources]) -> Table:
    table = Table()
    for field in fields(Resources):
        table.add_column(field.name, justify="left" if field.type is str else "right", overflow="fold")
    for row in found:
        table.add_row(*map(str, asdict(row).values()), style="red" if row.spills else None)
    return table


def main() -> int:
    """Exit status 0: compiled without spills; 1: with spills; 2: not compiled."""
    parser = argparse.ArgumentParser(prog="python -m kernels.aot", description="Compile every kernel without a GPU.")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this target (repeatable)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that compile")
    parser.add_argument("--json", action="store_true", help="print a list of objects, not a table")
    options = parser.parse_args()
    if triton is None or interpreted():
        missing = triton is None
        why = "triton is not installed here" if missing else "TRITON_INTERPRET is set, so nothing compiles: unset it"
        print(f"kernels.aot: {why}", file=sys.stderr)
        return 2
    # Fresh processes: forking one whose libraries have started threads can hang.
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_compile_case, *job) for job in product(options.target or TARGETS, CASES)]
    failures = [job.exception() for job in jobs if job.exception() is not None]
    if failures:
        print(*(f"kernels.aot: {failure}" for failure in failures), sep="\n", file=sys.stderr)
        return 2
    rows = [row for job in jobs for row in job.result()]
    rows.sort(key=lambda row: (row.kernel, row.config, list(TARGETS).index(row.target)))
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        Console().print(_table(rows))
    return int(any(row.spills for row in rows))


if __name__ == "__main__":
    sys.exit(main())
