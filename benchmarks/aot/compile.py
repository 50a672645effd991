"""Kernels compiled for a GPU on a machine that needs none.

The ops' own launchers are called with ordinary CPU tensors. `supermask.kernels.base.launch.launcher` hands each start
to Triton's `warmup`, and a driver that only names its target stands in for the device's, so a kernel is compiled with
the signature, the specialisation and the options that a real start would give it, and never run. Outputs therefore hold
nothing, and a case (benchmarks/aot/cases.py) must not look at them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

from benchmarks.aot.resources import TARGETS, AotError, Resources, resources_of
from supermask.kernels.base.launch import interpreted, launcher, triton

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

    try:
        before = driver.active
    except RuntimeError:  # there is no GPU here, and so no driver; none is what the next to ask is to find
        before = None
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
