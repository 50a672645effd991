"""How a packed layer comes by its weights: the one rule, from counted bytes.

A layer of a ticket can multiply by weights that it makes inside the product from its bits (`on_the_fly`), make dense
weights at each call and hand them to the library (`materialised`), or make these once and keep them (`cached`). The
product itself is the same for all three; what differs is what is moved and made for each edge at each call:

    on_the_fly     its bits, and on a GPU the integer instructions of making a weight for every block of rows of x
    materialised   its bits, a weight written, a weight read
    cached         a float32 read, and in 16 bits a weight written and read; a float32 held

The instructions count as the bytes that memory could have moved meanwhile, by data sheets (docs/roofline.md): a GPU has
between 0.13 (MI300X) and 0.23 (H100) bytes of memory bandwidth for each integer instruction. Dense weights are kept
only where the call's own activations take more memory than they do, and used where nothing is cheaper.
"""

from typing import Literal

import torch

Making = Literal["auto", "on_the_fly", "materialised", "cached"]

BITS = 0.25  # bytes an edge: mask and, where kept, sign
INSTRUCTIONS = 1.6  # integer instructions to make a weight (docs/resources)
BYTES_AN_INSTRUCTION = 0.16
BLOCK_ROWS = 64  # rows of x for which a program makes its weights once


def choose(
    *, device: torch.device, rows: int, edges: int, activations: int, itemsize: int, fused: bool, kept: bool,
    may_keep: bool,
) -> Making:  # fmt: skip
    """The cheapest way for one call.

    Args:
        device: where the layer is.
        rows: of x, as a matrix product sees it: positions of a convolution's output.
        edges: of the layer.
        activations: elements of the call's input and output.
        itemsize: bytes of their dtype.
        fused: whether there is a product that makes its weights inside, for this layer, dtype and device.
        kept: whether there are dense weights from an earlier call.
        may_keep: whether dense weights may be kept from this call on.
    """
    costs: dict[Making, float] = {"materialised": BITS + 2 * itemsize}
    if fused:
        blocks = -(-rows // BLOCK_ROWS)
        # On CPU the weights of a block of rows stay in cache, and few rows need none (kernels/masked_mm/cpu.py).
        making = 0.0 if device.type == "cpu" else blocks * INSTRUCTIONS * BYTES_AN_INSTRUCTION
        costs["on_the_fly"] = BITS + making
    if kept or (may_keep and 4 * edges <= activations * itemsize):
        costs["cached"] = 4.0 if itemsize == 4 else 4.0 + 2 * itemsize
    return min(costs, key=lambda way: costs[way])
