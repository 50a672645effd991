"""How an op reaches its code: one Triton launcher for GPU and interpreter, one PyTorch implementation for CPU.

Nothing here touches a device at import. Where Triton is not installed (it ships for Linux only) the kernel files still
import, and the CPU path works; starting a kernel then raises.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch.autograd import forward_ad

from supermask.kernels.base import native
from supermask.kernels.base.choice import Choice, chosen

try:
    import triton
    import triton.language as tl
except ImportError:  # not on this platform
    triton = None
    tl = SimpleNamespace(constexpr=object)

__all__ = [
    "cdiv",
    "cpu_path",
    "define_op",
    "interpreted",
    "jit",
    "launch",
    "launcher",
    "start",
    "tl",
    "triton",
    "unwatched",
    "watcher",
]

_PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
Launcher = Callable[[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]], None]


def jit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`triton.jit`, or the plain function where Triton is not installed."""
    if triton is not None:
        return triton.jit(function, **options) if function is not None else triton.jit(**options)
    return function if function is not None else lambda wrapped: wrapped


def cdiv(a: int, b: int) -> int:
    """Ceiling of a / b for positive integers."""
    return -(-a // b)


def interpreted() -> bool:
    """Whether Triton kernels run in Triton's interpreter (TRITON_INTERPRET=1 before the first import of triton)."""
    return triton is not None and bool(triton.knobs.runtime.interpret)


def start(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], meta: dict[str, Any]) -> None:
    """Start `kernel` on the device of its tensors: what `launch` does where nothing takes its place."""
    if triton is None:
        raise RuntimeError("starting a Triton kernel, but triton is not installed here: pip install triton (Linux)")
    device = next(arg.device for arg in args if isinstance(arg, torch.Tensor))
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*args, **meta)


_LAUNCHER: ContextVar[Launcher] = ContextVar("launcher", default=start)


@contextmanager
def launcher(instead: Launcher) -> Iterator[None]:
    """Within the block, `launch` calls `instead(kernel, grid, args, meta)`: so kernels are compiled alone."""
    token = _LAUNCHER.set(instead)
    try:
        yield
    finally:
        _LAUNCHER.reset(token)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
    """Start `kernel` on `grid` with `args`; an empty grid starts nothing."""
    if 0 not in grid:
        _LAUNCHER.get()(kernel, grid, args, meta)


def cpu_path() -> Choice:
    """How CPU tensors are served: "native" (the C extension, where usable), "torch", or "triton" (interpreted)."""
    choice = chosen()
    if choice == "triton" and not interpreted():
        raise RuntimeError("SUPERMASK_KERNELS=triton needs TRITON_INTERPRET=1: Triton has no CPU code generator here")
    return choice if choice != "native" or not isinstance(native.library(), str) else "torch"


@cache
def watcher() -> Callable[[], bool] | None:
    """What tells whether torch traces or wraps operations, or has a default device set, which an op sets aside; None
    where torch lacks one of the names that say so, none of which it documents."""
    try:
        tracing, transform = torch._C._is_tracing, torch._C._functorch.maybe_current_level
        dispatch, functions = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
        _ = forward_ad._current_level  # read at every call, and here to see whether it is there
    except AttributeError:
        return None

    def watching() -> bool:
        return bool(tracing() or dispatch() or functions() or transform() is not None or forward_ad._current_level >= 0)

    return watching


def unwatched(*tensors: torch.Tensor | None) -> bool:
    """Whether an op on these CPU tensors may be called as the plain function it is: nothing traces or wraps it, no view
    is lazy, and no gradient is wanted. A custom op costs up to 0.1 ms more than its code, as much as a product from
    bits. False, so that the op itself is called, where torch does not tell."""
    if torch.compiler.is_compiling():
        return False
    watching = watcher()
    if watching is None or watching() or torch.overrides.has_torch_function(tensors):
        return False
    wanted = torch.is_grad_enabled()
    return all(
        t is None
        or (type(t) in _PLAIN and t.device.type == "cpu" and not t.is_neg() and not (wanted and t.requires_grad))
        for t in tensors
    )


class Op:
    """A custom op, called as the plain function it is where nothing watches: the first call of a custom op imports
    torch's compiler, which takes seconds, and each costs up to 0.1 ms.

    Not where it writes into its arguments, since only the op counts that as a write.
    """

    def __init__(self, op: Any, on_cpu: Callable[..., Any]) -> None:
        self._op, self._on_cpu = op, on_cpu
        self.register_autograd = op.register_autograd

    def __call__(self, *args: Any) -> Any:
        return self._on_cpu(*args) if self._is_plain(args) else self._op(*args)

    @staticmethod
    def _is_plain(args: tuple[Any, ...]) -> bool:
        tensors: list[torch.Tensor | None] = []
        for arg in args:
            if isinstance(arg, torch.Tensor):
                tensors.append(arg)
            elif isinstance(arg, list | tuple):
                tensors += [item for item in arg if isinstance(item, torch.Tensor)]
            elif isinstance(arg, torch.device) and arg.type != "cpu":
                return False
        return unwatched(*tensors)


def define_op(
    name: str,
    *,
    triton_impl: Callable[..., Any],
    torch_impl: Callable[..., Any],
    fake: Callable[..., Any],
    mutates: tuple[str, ...] = (),
    native_impl: Callable[..., Any] | None = None,
    schema: str | None = None,
    records: Callable[..., tuple[Any, ...]] | None = None,
) -> Any:
    """Register `supermask::name`: `triton_impl` on GPU (CUDA and ROCm), on CPU `native_impl` where there is one and the
    C extension is usable (kernels/base/native.py), else `torch_impl`.

    All take the same arguments. Where these are records, which no schema knows, `schema` states the op's own flat ones
    and `records` makes of them what the implementations take; else the schema is read from the annotations of
    `triton_impl`. SUPERMASK_KERNELS in the environment chooses the CPU's path: "torch" without the extension, "triton"
    (with TRITON_INTERPRET=1) the launcher.
    """

    def flat(implementation: Callable[..., Any]) -> Callable[..., Any]:
        return implementation if records is None else lambda *args: implementation(*records(*args))

    on_gpu = flat(triton_impl)
    paths = {"native": flat(native_impl or torch_impl), "torch": flat(torch_impl), "triton": on_gpu}

    def on_cpu(*args: Any) -> Any:
        return paths[cpu_path()](*args)

    def by_device(*args: Any) -> Any:
        device = next(arg for arg in args if isinstance(arg, torch.device))
        return (on_cpu if device.type == "cpu" else on_gpu)(*args)

    called, schema = f"supermask::{name}", schema or torch.library.infer_schema(triton_impl, mutates_args=mutates)
    if torch.device in inspect.get_annotations(triton_impl).values():
        # It may take no tensor whose device would choose: torch 2.11 lets such an op have one implementation only.
        op = torch.library.custom_op(called, by_device, mutates_args=mutates, schema=schema)
    else:
        op = torch.library.custom_op(called, on_gpu, mutates_args=mutates, device_types="cuda", schema=schema)
        op.register_kernel("cpu")(on_cpu)
    op.register_fake(fake)
    return op if mutates else Op(op, on_cpu)
