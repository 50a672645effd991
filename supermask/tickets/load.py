"""Reading tickets: the network, what the header says, and every check there is.

A reloaded network gives the searched one's logits to the bit, on the device both run on.
"""

from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from supermask.checks import check_choice
from supermask.edges.making import Making
from supermask.tickets.assemble import masked, parts_of, read_parts
from supermask.tickets.file import reading
from supermask.tickets.info import TicketInfo


def load(
    file: str | Path | BinaryIO,
    *,
    model: nn.Module | None = None,
    weights: Making = "auto",
    device: torch.device | str = "cpu",
) -> nn.Module:
    """The network of a ticket, in eval mode, all of it frozen. Torch's random state is not touched.

    Args:
        file: a path, of a ticket or of a folder with one called model.safetensors, or a binary file open for reading.
        model: dense or masked network to turn into the ticket's, in place, where the ticket names no architecture or
            another one is wanted. One that does not fit is left as it was.
        weights: how layers come by them. "cached": made once, float32, and kept. "materialised": made at each forward,
            a layer at a time. "on_the_fly": inside the product, from one bit an edge; what has no such product (1-d,
            3-d and transposed convolutions, and on CPU 2-d ones) is materialised. "auto": what costs least for the call
            (supermask/edges/making.py). The weights have the same bits in all of them, and with the first two so do the
            logits; products that make their weights add up in another order. Transforms of torch.func and forward-mode
            gradients take the first two only.
        device: where the network goes.

    Raises:
        TicketError: a file that is not a whole, consistent ticket, or a model that does not fit it, each difference
            named. The file is checked before a network is built.
    """
    check_choice("weights", weights, Making)
    return masked(read_parts(file, model=model, weights=weights, device=device)).to(device)


def inspect(file: str | Path | BinaryIO) -> TicketInfo:
    """What a ticket holds, after the checks of its header, sizes and digest; no mask is decoded, no network built.

    Raises:
        TicketError: a file that is not a ticket, damaged, or contradicts itself.
    """
    with reading(file) as reader:
        return reader.info


def verify(file: str | Path | BinaryIO) -> TicketInfo:
    """What a ticket holds, after every check: those of `inspect`, each mask decoded and counted, and its network built
    and filled where it names an architecture.

    Raises:
        TicketError: one of them fails.
    """
    with reading(file) as reader:
        info = reader.info
        if info.architecture is not None:
            masked(parts_of(reader, model=None, weights="materialised", device="cpu"))
        else:
            for layer in info.layers:
                reader.planes(layer)
        return info
