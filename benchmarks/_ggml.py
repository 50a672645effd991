"""ggml's TQ2_0 product, ternary weights of 2.06 bits by inputs rounded to 8, through ctypes, for comparison."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

F32, TQ2_0 = 0, 35  # enum ggml_type
BLOCK = 256  # inputs that share a scale


class _Params(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class Ggml:
    """The libraries in `folder`, libggml-base and libggml-cpu.

    Raises:
        FileNotFoundError: they are not there.
    """

    def __init__(self, folder: Path) -> None:
        paths = [folder / f"libggml-{part}.so" for part in ("base", "cpu")]
        for path in paths:
            if not path.exists():
                raise FileNotFoundError(f"{path} does not exist: give the folder of ggml's shared libraries")
        self.base, self.cpu = (ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in paths)

    def product(self, weight: Tensor, x: Tensor, threads: int) -> Callable[[], Tensor]:
        """Calls give x W^T; the weights, float32 [rows, cols] with cols a multiple of 256, are packed once, here."""
        (rows, cols), n = weight.shape, len(x)
        if cols % BLOCK:
            raise ValueError(f"{cols} columns: TQ2_0 takes multiples of {BLOCK}")
        size = self._call("ggml_tensor_overhead", ctypes.c_size_t) * 8
        size += self._call("ggml_graph_overhead", ctypes.c_size_t)
        context = self._call("ggml_init", ctypes.c_void_p, _Params(size, None, True))
        w, given = (
            self._call("ggml_new_tensor_2d", ctypes.c_void_p, context, ctypes.c_int(kind), *map(ctypes.c_int64, shape))
            for kind, shape in ((TQ2_0, (cols, rows)), (F32, (cols, n)))
        )
        y = self._call("ggml_mul_mat", ctypes.c_void_p, context, w, given)
        graph = self._call("ggml_new_graph", ctypes.c_void_p, context)
        self._call("ggml_build_forward_expand", None, graph, y)
        backend = self._call("ggml_backend_cpu_init", ctypes.c_void_p)
        self._call("ggml_backend_cpu_set_n_threads", None, backend, ctypes.c_int(threads))
        self._call("ggml_backend_alloc_ctx_tensors", ctypes.c_void_p, context, backend)

        packed = np.empty(self._call("ggml_nbytes", ctypes.c_size_t, w), np.uint8)
        dense = weight.float().contiguous()
        room = ctypes.c_void_p(packed.ctypes.data)
        sizes = map(ctypes.c_int64, (0, rows, cols))
        self._call(
            "ggml_quantize_chunk", ctypes.c_size_t, ctypes.c_int(TQ2_0), _at(dense), room, *sizes, ctypes.c_void_p()
        )
        self._call("ggml_backend_tensor_set", None, w, room, ctypes.c_size_t(0), ctypes.c_size_t(packed.nbytes))
        self._call(
            "ggml_backend_tensor_set", None, given, _at(x), ctypes.c_size_t(0), ctypes.c_size_t(x.numel() * x.itemsize)
        )
        found = torch.empty(n, rows)

        def call() -> Tensor:
            if self._call("ggml_backend_graph_compute", ctypes.c_int, backend, graph) != 0:
                raise RuntimeError("ggml_backend_graph_compute failed")
            self._call(
                "ggml_backend_tensor_get", None, y, _at(found), ctypes.c_size_t(0), ctypes.c_size_t(4 * n * rows)
            )
            return found

        return call

    def _call(self, name: str, returns: type | None, *args: object) -> int:
        function = getattr(self.cpu if "cpu" in name else self.base, name)
        function.restype = returns
        pointers = [ctypes.c_void_p(arg) if isinstance(arg, int) else arg for arg in args]
        return function(*pointers)


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
