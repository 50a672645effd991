"""masked_mm on CPU: y = x W^T * constant + bias without W, in the cheapest of three ways.

Tables (csrc/masked_mm.c): needs the C extension and `codes` (kernels/masked_mm/codes.py), mask and sign in 1.8 bits an
edge. A vector of codes holds the same 18 inputs of 16 rows; five bits of a lane, three inputs, look up which of their
27 sums the row adds. 16-bit inputs are widened, every sum is one of float32 numbers, and the result is rounded once.
Blocks: a block of rows of W is made in scratch that the caches hold, multiplied by PyTorch's own product, and its place
taken by the next. bfloat16 is multiplied as such, by weights rounded to it as a dense layer's would be; float16, for
which few processors have a fast product, is widened. Traced (`masked_mm_traced`): plain arithmetic for the compiler,
which makes one loop of it.

What a layer holds for this: its mask, 1 bit an edge; for tables the codes, 32 bits for 18 edges; and its signs, 1 bit
an edge, so that they are not drawn again for every block. The dense matrix never exists.

An x that is not finite: an edge that the mask leaves out adds nothing by table and traced, where PyTorch's product, and
so a block, adds 0 * inf = NaN. Nothing may rely on either.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.launch import cdiv
from supermask.kernels.base.planes import Planes
from supermask.kernels.masked_mm.codes import BAND, LANES, check_codes, codes_shape
from supermask.kernels.packed_weight.op import fill_weights

__all__ = [
    "Blocks",
    "masked_mm_backward_cpu",
    "masked_mm_cpu",
    "masked_mm_traced",
    "prefers_tables",
    "prefers_traced",
]

_BLOCK = 1 << 22  # bytes of a block of W: enough that starting a product costs little, and the caches hold it
_TABLE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def prefers_tables(n: int, rows: int, cols: int, dtype: torch.dtype) -> bool:
    """Whether tables are faster than blocks for `n` rows of x in `dtype`, where both can be had.

    Counted operations times what each takes, in nanoseconds, on two threads of Zen 4. Tables: a look-up and addition
    for each 16 rows of W and 6 to make the tables of a chunk of rows, of which there are at most four; and each
    element of y, which in 16 bits is written twice. Blocks: a call of the library, a weight made once, a product for
    each row of x (in float32 as long for a few rows of W as for 48), and each element of y. So at 4096 x 4096 tables
    are faster at any n in float32 (and float16, widened) and up to some 90 rows of x in bfloat16.
    """
    groups, bands, edges = cdiv(rows, LANES), cdiv(rows, LANES * BAND), rows * cols
    narrow = dtype is torch.bfloat16
    lookups = cols * LANES * (groups + 6 * min(4, bands)) * 0.00645 * (1 if bands > 1 else 2)
    tables = 40e3 + n * (lookups + rows * (0.5 if dtype is torch.float32 else 0.7))
    product = edges * 0.0053 if narrow else max(rows, 48) * cols * 0.0207
    blocks = (100e3 if narrow else 60e3) + edges * (0.155 if narrow else 0.3) + n * (product + rows * 0.4)
    return dtype is not torch.float64 and tables < blocks


def masked_mm_cpu(x: Tensor, planes: Planes, codes: Tensor | None, bias: Tensor | None) -> Tensor:
    """x [..., cols] times W^T: y [..., rows] in the dtype of x.

    Args:
        codes: of the one coat and of the signs with flips applied; read in place of them where the extension runs.
        bias: as masked_mm takes it.

    Raises:
        ValueError: codes of another layer's shape.
    """
    coats, rows, _ = planes.mask.shape
    cols = x.shape[-1]
    if codes is not None:
        check_codes(codes, rows, cols)
    if codes is None or coats != 1 or x.dtype is torch.float64 or not native.usable():
        codes = None
    found = None if codes is None else by_tables(x, codes, planes.theta.constant, bias, rows)
    if found is not None:
        return found
    blocks = Blocks(planes, cols, _product_dtype(x.dtype))
    return _by_blocks(x.reshape(-1, cols), blocks, bias).view(*x.shape[:-1], rows)


def masked_mm_backward_cpu(grad: Tensor, planes: Planes, cols: int) -> Tensor:
    """grad [..., rows] times W: [..., cols] in the dtype of grad."""
    matrix = grad.reshape(-1, grad.shape[-1])
    dtype = torch.promote_types(grad.dtype, torch.float32)  # the sum grows block by block: no rounding between them
    found = torch.zeros(len(matrix), cols, dtype=dtype)
    blocks = Blocks(planes, cols, dtype)
    for rows in blocks:
        found.addmm_(matrix[:, rows].to(dtype), blocks.weights(rows))
    return found.to(grad.dtype).view(*grad.shape[:-1], cols)


def by_tables(x: Tensor, codes: Tensor, constant: Tensor, bias: Tensor | None, rows: int) -> Tensor | None:
    """The product by tables; None where blocks are faster, or the arguments are not all as they must be."""
    cols, dtype = x.shape[-1] if x.ndim else 0, x.dtype
    if dtype not in _TABLE_DTYPES or codes.shape != codes_shape(rows, cols) or not codes.is_contiguous():
        return None
    if not (rows and cols) or constant.numel() != 1:
        return None
    if bias is not None and (bias.dtype not in (dtype, torch.float32) or bias.shape != (rows,)):
        return None
    n = x.numel() // cols
    if codes.dtype is not torch.int32 or constant.dtype is not torch.float32:
        return None
    if not prefers_tables(n, rows, cols, dtype):
        return None
    wide = x.float().contiguous()
    if bias is not None:
        bias = bias.float().contiguous()
    y = torch.empty(*x.shape[:-1], rows, dtype=torch.float32)
    native.call("sm_masked_mm", "ppppplll", wide, codes, constant, bias, y, n, rows, cols)
    return y if dtype is torch.float32 else y.to(dtype)


def _by_blocks(x: Tensor, blocks: "Blocks", bias: Tensor | None) -> Tensor:
    given = x.to(blocks.room.dtype)
    added = None if bias is None else bias.to(blocks.room.dtype)
    if blocks.step == blocks.rows:
        return F.linear(given, blocks.weights(slice(0, blocks.rows)), added).to(x.dtype)
    y = torch.empty(len(x), blocks.rows, dtype=blocks.room.dtype)
    for rows in blocks:
        if added is None:
            torch.mm(given, blocks.weights(rows).t(), out=y[:, rows])
        else:
            torch.addmm(added[rows], given, blocks.weights(rows).t(), out=y[:, rows])
    return y.to(x.dtype)


def _product_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype is torch.float16 else dtype


class Blocks:
    """W, `cols` columns of `dtype`, a block of rows at a time, always in the same place."""

    def __init__(self, planes: Planes, cols: int, dtype: torch.dtype) -> None:
        self.mask, theta, self.flips = planes
        self.constant = theta.constant
        self.rows, self.cols = self.mask.shape[1], cols
        self.signs = theta.words(self.rows, cols)
        self.step = min(self.rows, max(LANES, _BLOCK // (max(1, cols) * dtype.itemsize) // LANES * LANES))
        self.room = torch.empty(self.step, cols, dtype=dtype)

    def __iter__(self) -> Iterator[slice]:
        return (slice(row, min(row + self.step, self.rows)) for row in range(0, self.rows, self.step))

    def weights(self, rows: slice) -> Tensor:
        """Rows of W, until the next call."""
        room = self.room[: rows.stop - rows.start]
        signs = self.signs[rows] if self.flips is None else self.signs[rows] ^ self.flips[rows]
        return fill_weights(room, self.mask[:, rows], self.constant, signs)


_TRACED = 8  # rows of x: above, making W once for all of them is cheaper


def prefers_traced(x: Tensor) -> bool:
    """Whether a compiler should see the product as `masked_mm_traced`, where the extension is not to be had.

    Its loop makes W anew for each row of x, in 0.65 ms for 4096 x 4096 on two threads of Zen 4. The blocks of
    `masked_mm_cpu` make it once, on one thread, in 5 ms, and then multiply, by 0.2 ms a row and more where there are
    few. A number of rows not known while tracing is left to the blocks, and so is an x that needs a gradient.
    """
    n = math.prod(x.shape[:-1])
    return isinstance(n, int) and n <= _TRACED and not (torch.is_grad_enabled() and x.requires_grad)


def masked_mm_traced(x: Tensor, planes: Planes, bias: Tensor | None) -> Tensor:
    """`masked_mm_cpu` as arithmetic on bits that the compiler turns into one vector loop; not meant to run eagerly.

    An edge's product is the bits of x with the sign's bit flipped, and all of them cleared where the mask is zero: four
    integer operations and an addition an edge. Coats add up as a product with their number.

    Raises:
        ValueError: x needs a gradient, which its bits do not carry.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        raise ValueError(
            "x requires a gradient: masked_mm_traced reads its bits, which carry none; call the op masked_mm"
        )
    mask = planes.mask
    coats, rows, words = mask.shape
    cols = x.shape[-1]
    signs = planes.signs(cols)[:, :, None]
    bit = torch.arange(32, dtype=torch.int32)
    wide = F.pad(x.reshape(-1, cols).float(), (0, 32 * words - cols))
    if x.dtype is not torch.float32:
        # Half of a word is read as a number one by one; a scan, here of one element, is written down before it is read.
        wide = wide[None].cumsum(0)[0]
    wide = wide.view(-1, 1, words, 32)
    bits = wide.view(torch.int32) ^ ((signs << (31 - bit)) & -(2**31))
    if coats == 1:
        products = (bits & -((mask[0, :, :, None] >> bit) & 1)).view(torch.float32)
    else:
        products = bits.view(torch.float32) * ((mask[..., None] >> bit) & 1).sum(0)
    y = products.sum((2, 3)) * planes.theta.constant
    return (y if bias is None else y + bias).to(x.dtype).view(*x.shape[:-1], rows)
