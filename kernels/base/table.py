"""Tables on a device of what one launch over several layers has to know: where each lies, and how large it is.

A layer is a row of int64 numbers, addresses among them, and deals out pieces of work (tiles, calls): a field of the row
says how many pieces the layers before it have. Eagerly a table is copied, and the host waits for nothing. While a CUDA
graph is captured the numbers travel as arguments of launches: a replay finds them there, where a copy would read host
memory that has other uses by then. Addresses are those at the capture, as everything in a graph.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base.launch import interpreted, jit, launch, tl

CARRIED = 32
"""Numbers that a launch carries, in halves: launches know integers of 32 bits as such, whatever their values."""


@jit(do_not_specialize=["first", "count", *(f"h{i}" for i in range(2 * CARRIED))])
def _table_kernel(
    table_ptr, first, count,
    h0, h1, h2, h3, h4, h5, h6, h7, h8, h9, h10, h11, h12, h13, h14, h15, h16, h17, h18, h19, h20, h21, h22, h23,
    h24, h25, h26, h27, h28, h29, h30, h31, h32, h33, h34, h35, h36, h37, h38, h39, h40, h41, h42, h43, h44, h45,
    h46, h47, h48, h49, h50, h51, h52, h53, h54, h55, h56, h57, h58, h59, h60, h61, h62, h63,
    CARRIED: tl.constexpr,
):  # fmt: skip
    """Up to `CARRIED` numbers of a table, from its `first` on; of each the lower half, then the upper."""
    halves = (
        h0, h1, h2, h3, h4, h5, h6, h7, h8, h9, h10, h11, h12, h13, h14, h15, h16, h17, h18, h19, h20, h21, h22,
        h23, h24, h25, h26, h27, h28, h29, h30, h31, h32, h33, h34, h35, h36, h37, h38, h39, h40, h41, h42, h43,
        h44, h45, h46, h47, h48, h49, h50, h51, h52, h53, h54, h55, h56, h57, h58, h59, h60, h61, h62, h63
    )  # fmt: skip
    for i in tl.static_range(CARRIED):
        if i < count:
            low = halves[2 * i].to(tl.int64) & 0xFFFFFFFF
            tl.store(table_ptr + first + i, (halves[2 * i + 1].to(tl.int64) << 32) | low)


@jit(do_not_specialize=["pieces"])
def _spread_kernel(
    table_ptr, layer_ptr, pieces: "tl.int64", FIELD: tl.constexpr, FIELDS: tl.constexpr, BLOCK: tl.constexpr
):
    """One layer: its number, in the place of each piece that it deals out."""
    layer = tl.program_id(0)
    row_ptr = table_ptr + layer.to(tl.int64) * FIELDS + FIELD
    begin = tl.load(row_ptr)
    end = pieces
    if layer + 1 < tl.num_programs(0):
        end = tl.load(row_ptr + FIELDS)
    for at in range(begin, end, BLOCK):
        offs = at + tl.arange(0, BLOCK)
        tl.store(layer_ptr + offs, tl.zeros((BLOCK,), tl.int64) + layer, mask=offs < end)


def capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured there."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


def on_device(rows: Any, device: torch.device) -> Tensor:
    """An int64 array as a flat tensor on `device`; the host does not wait for it."""
    if capturing(device):
        return carried(rows, device)
    if device.type == "cuda":
        _make_ready(device)
    # From pinned memory, so that the copy waits for nothing; the allocator keeps the memory until the copy is done.
    host = torch.empty(rows.size, dtype=torch.int64, pin_memory=device.type == "cuda")
    host.numpy()[:] = rows.reshape(-1)
    return host.to(device, non_blocking=True)


@cache
def _make_ready(device: torch.device) -> None:
    """Launch what carries once, outside of a capture: a first launch loads code, which a capture may not allow."""
    carried(np.zeros(1, np.int64), device)


def carried(rows: Any, device: torch.device) -> Tensor:
    """The same by launches that carry the numbers."""
    flat = np.ascontiguousarray(rows.reshape(-1), dtype="<i8")
    table = torch.empty(flat.size, dtype=torch.int64, device=device)
    for first in range(0, flat.size, CARRIED):
        part = flat[first : first + CARRIED]
        halves = np.zeros(2 * CARRIED, "<i4")
        halves[: 2 * len(part)] = part.view("<i4")
        launch(_table_kernel, (1,), table, first, len(part), *halves.tolist(), CARRIED=CARRIED, num_warps=1)
    return table


def dealt(counts: Any) -> tuple[Any, int]:
    """How many pieces the layers before each deal out, and all of them together."""
    ends = np.cumsum(counts)
    return ends - counts, int(ends[-1]) if len(ends) else 0


def spread(table: Tensor, pieces: int, *, field: int, fields: int) -> Tensor:
    """The layer of each of the `pieces`, int64, where field `field` of a row says how many come before."""
    layer_of = torch.empty(pieces, dtype=torch.int64, device=table.device)
    block = 4 if interpreted() else 1024
    layers = table.numel() // fields
    launch(_spread_kernel, (layers,), table, layer_of, pieces, FIELD=field, FIELDS=fields, BLOCK=block, num_warps=4)
    return layer_of
