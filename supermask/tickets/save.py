"""Writing tickets: a searched network as a file of about one bit an edge or less.

The file holds masks, the seed, and what else the network computes with (supermask/tickets/file.py); the weights are
made from the seed.
"""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import torch
from torch import Tensor, nn

from supermask.checks import check_choice, join
from supermask.edges.base import Edges
from supermask.edges.packed import PackedEdges
from supermask.edges.selection import selected_once
from supermask.edges.stored import NotStorable, Stored
from supermask.edges.wrappers import wrapped_part
from supermask.networks.anatomy import Anatomy, BatchNorm, carve
from supermask.networks.architecture import Architecture
from supermask.tickets.assemble import skeleton
from supermask.tickets.coding.planes import Encoding
from supermask.tickets.container import DTYPE_NAMES, DTYPES, FOLDER_FILE, target_name
from supermask.tickets.errors import TicketError
from supermask.tickets.file import write, written
from supermask.tickets.info import Layer, TensorInfo, TicketInfo
from supermask.tickets.match import check_parts, check_storable
from supermask.tickets.names import check_storing

Precision = Literal["exact", "bfloat16"]


@torch.no_grad()
def save(
    model: nn.Module,
    file: str | Path | BinaryIO,
    *,
    architecture: Architecture | None,
    encoding: Encoding = "ans",
    precision: Precision = "exact",
    fold: bool = False,
) -> TicketInfo:
    """Write the ticket of `model`, with the masks of this moment; the file appears whole or not at all.

    Args:
        model: network with masked layers, searched or loaded from a ticket. It is not changed. Of one that is wrapped
            (compiled, data-parallel, averaged, checkpointed), or has parts that are, it is the network inside.
        file: a path, or a binary file open for writing.
        architecture: what the network is rebuilt from; None where whoever loads it will bring the model.
        encoding: of the masks. "ans": entropy-coded, as small as their structure allows. "raw": one bit an edge, faster
            to load.
        precision: of every other float32 tensor (batch-norm statistics, biases): "exact", or rounded to "bfloat16".
        fold: store each batch norm's statistics, scale and shift as one scale and one shift a channel. The network is
            the same up to rounding, and its statistics can no longer be recalibrated.

    Raises:
        TicketError: nothing masked, more than one seed, an architecture that is not the model's, a file that cannot be
            written. What was at a path is then still there.
    """
    where = target_name(file)
    check_choice("encoding", encoding, Encoding)
    check_choice("precision", precision, Precision)
    if not isinstance(architecture, Architecture | None):
        raise TypeError(f"architecture is {architecture!r}: expected a supermask.Architecture or None")
    _check_whole(model, where)
    network = carve(model)
    seed = _seed(network, where)
    edges = dict(sorted(network.edges.items(), key=lambda item: item[1].layer))
    folded = sorted(network.batch_norms) if fold else []
    tensors = _tensors(network, where, folded, precision)
    with selected_once(model):
        stored = {name: _stored(layer, f"{where}: layer {name!r}") for name, layer in edges.items()}
    planes = {name: {part: bits.cpu() for part, bits in found.planes.items()} for name, found in stored.items()}
    layers = [_layer(name, layer, stored[name]) for name, layer in edges.items()]
    if architecture is not None:
        others = {
            name: TensorInfo(name=name, dtype=DTYPE_NAMES[tensor.dtype], shape=tuple(tensor.shape))
            for name, tensor in tensors.items()
        }
        named = carve(skeleton(where, architecture))
        check_parts(where, named, str(architecture), layers, others, folded)
    return write(
        file, planes, tensors, encoding=encoding, seed=seed, architecture=architecture, layers=layers, folded=folded,
        narrowed=precision == "bfloat16",
    )  # fmt: skip


def save_folder(
    model: nn.Module,
    folder: str | Path,
    *,
    architecture: Architecture | None,
    encoding: Encoding = "ans",
    precision: Precision = "exact",
    fold: bool = False,
) -> TicketInfo:
    """Write a folder as model hubs have them: the ticket as model.safetensors, which is all that `load(folder)` reads;
    a summary of it for people and hubs as config.json; and a model card README.md, unless there is one.

    Raises:
        TicketError: as `save`.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TicketError(f"{folder}: cannot be made: {error}") from error
    info = save(
        model, folder / FOLDER_FILE, architecture=architecture, encoding=encoding, precision=precision, fold=fold
    )
    config = {
        "library_name": "supermask",
        "format_version": info.version,
        "architecture": None if architecture is None else architecture.to_json(),
        "seed": info.seed,
        "edges": info.edges,
        "kept": info.kept,
        "sha256": info.sha256,
    }
    texts = {"config.json": json.dumps(config, indent=2) + "\n"}
    if not (folder / "README.md").exists():
        call = '"FOLDER"' if architecture is not None else '"FOLDER", model=...'
        texts["README.md"] = _CARD.format(name=architecture or "a network of your own", call=call)
    for name, text in texts.items():
        written(folder / name, partial(Path.write_bytes, data=text.encode()), lambda path: path)
    return info


_CARD = """---
library_name: supermask
tags: [supermask, strong-lottery-ticket]
---

A strong lottery ticket of {name}; config.json says more.

```python
import supermask

network = supermask.load({call})
```
"""


def _check_whole(model: nn.Module, where: str) -> None:
    """Raise TicketError where a process holds a part of each tensor."""
    for module in model.modules():
        if wrapped_part(module) == "_fsdp_wrapped_module":
            raise TicketError(
                f"{where}: {type(module).__name__} holds a shard of each tensor: save the network that it was made of, "
                "with a state dict gathered from all processes"
            )


def _seed(network: Anatomy, where: str) -> int:
    """The one seed of all masked layers, each of which has edges of its own."""
    edges = network.edges
    owners = Counter(map(id, edges.values()))
    if twice := [name for name, layer in edges.items() if owners[id(layer)] > 1]:
        raise TicketError(
            f"{where}: several layers share the edges of {twice[0]!r}: a ticket has a mask for each layer"
        )
    if not edges:
        called = type(network.model).__name__
        raise TicketError(f"{where}: {called} has no masked layer, so there is no ticket to save")
    seeds = {layer.seed: name for name, layer in edges.items()}
    if len(seeds) > 1:
        each = ", ".join(f"{name!r} has {seed}" for seed, name in seeds.items())
        raise TicketError(f"{where}: a ticket has one seed, and layer {each}")
    return next(iter(seeds))


def _stored(edges: Edges, where: str) -> Stored:
    """What is stored of a layer's edges, from which its weights are made again."""
    try:
        stored = edges.stored()
    except NotStorable as error:
        raise TicketError(f"{where}: {error}") from error
    check_storing(where, stored, edges.weights)
    made = PackedEdges.of(
        stored, edges.shape, seed=edges.seed, layer=edges.layer, generation=edges.generation, weights=edges.weights,
        making="materialised", device=edges.constant.device,
    )  # fmt: skip
    if not torch.equal(made(torch.float32), edges(torch.float32, record=False)):
        raise TicketError(
            f"{where}: a reader would make other weights than {type(edges).__name__} does: what it stores is not all "
            "that they depend on; keep that in flips or constant, and name it in `stored`"
        )
    return stored


def _layer(name: str, edges: Edges, stored: Stored) -> Layer:
    return Layer(
        name=name,
        index=edges.layer,
        shape=edges.shape,
        weights=edges.weights,
        generation=edges.generation,
        values=stored.values,
    )


def _tensors(network: Anatomy, where: str, folded: list[str], precision: Precision) -> dict[str, Tensor]:
    """What a ticket holds beside the planes: copies on CPU."""
    check_storable(where, network)
    found, norms = dict(network.tensors), network.batch_norms
    for name in folded:
        norm = norms[name]
        for full in norm.names.values():
            found.pop(full, None)
        for part, tensor in zip(("weight", "bias"), _scale_and_shift(norm), strict=True):
            found[join(name, part)] = tensor
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in found.items()
    }
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPE_NAMES:
            raise TicketError(f"{where}: tensor {name!r} is {tensor.dtype}: a ticket holds {', '.join(DTYPES)}")
    if precision == "exact":
        return tensors
    for name, tensor in tensors.items():
        if tensor.dtype is torch.bfloat16:
            raise TicketError(
                f"{where}: tensor {name!r} is torch.bfloat16 already, and precision='bfloat16' stores float32 tensors "
                "so that they are float32 again when loaded: save with precision='exact'"
            )
    return {name: t.to(torch.bfloat16) if t.dtype is torch.float32 else t for name, t in tensors.items()}


def _scale_and_shift(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """y = scale * x + shift of a batch norm in eval mode, in its dtype, computed in float64."""
    scale = torch.rsqrt(norm.variance.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return scale.to(norm.mean.dtype), shift.to(norm.mean.dtype)
