"""Data-parallel runs: what the processes that torchrun starts agree on.

Every process holds the whole network and its share of each global batch. Batch-norm statistics are those of the global
batch, so that a run differs from the one-process run by the order of sums alone; masks are a function of the scores,
and are checked to agree.
"""

import hashlib
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from supermask.checks import SupermaskError
from supermask.data.base import Part
from supermask.devices import meant
from supermask.edges.base import Edges
from supermask.edges.in_model import all_edges
from supermask.edges.selection import selected_once


class RanksDisagree(SupermaskError, RuntimeError):
    """Two processes hold different masks; the message names the layer."""

    status = 1


@dataclass(frozen=True, kw_only=True)
class Group:
    """The processes of one run; a run of its own process only is a group of one.

    Attributes:
        rank, ranks: of this process, and how many there are.
        control: the process group for small values on CPU, which never wait for a GPU.
    """

    rank: int = 0
    ranks: int = 1
    control: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def part(self, epoch: int = 0, start: int = 0) -> Part:
        """This process's share of the batches."""
        return Part(epoch=epoch, start=start, rank=self.rank, ranks=self.ranks)

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over the processes; any shape, on the training device."""
        if self.ranks > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def highest(self, value: int) -> int:
        """The highest `value` of any process."""
        if self.ranks == 1:
            return value
        held = torch.tensor(value)
        dist.all_reduce(held, op=dist.ReduceOp.MAX, group=self.control)
        return int(held)

    def send(self, data: bytes) -> bytes:
        """The first process's `data`, on all."""
        if self.ranks == 1:
            return data
        size = torch.tensor(len(data))
        dist.broadcast(size, src=0, group=self.control)
        held = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.first and data else None
        if held is None:
            held = torch.empty(int(size), dtype=torch.uint8)
        if int(size):
            dist.broadcast(held, src=0, group=self.control)
        return held.numpy().tobytes()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.ranks > 1:
            dist.barrier(group=self.control)

    def check_masks(self, model: nn.Module) -> None:
        """Raise RanksDisagree unless all processes select the same edges and hold the same buffers, by hash."""
        layers = all_edges(model) if self.ranks > 1 else {}
        if not layers:
            return
        with selected_once(model):
            digests = [_digest(edges) for edges in layers.values()]
        own = torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(len(layers), -1)
        theirs = [torch.empty_like(own) for _ in range(self.ranks)]
        dist.all_gather(theirs, own, group=self.control)
        for rank, other in enumerate(theirs):
            differ = (other != theirs[0]).any(dim=1).nonzero().flatten().tolist()
            if differ:
                raise RanksDisagree(
                    f"rank {rank} selects other edges than rank 0 in layer {list(layers)[differ[0]]} (and "
                    f"{len(differ) - 1} more): the scores have drifted apart, so this run cannot be trusted; look for "
                    "code that changes scores on one process only, or for faulty memory"
                )

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with gradients averaged over the processes."""
        if self.ranks == 1:
            return model
        # Buffers are equal by construction: sending them at every forward would only cost time.
        known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
        quiet: dict[str, Any] = {option: False}
        return nn.parallel.DistributedDataParallel(model, **quiet)


ALONE = Group()


def _digest(edges: Edges) -> bytes:
    digest = hashlib.sha256()
    for tensor in edges.agreed():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


@contextmanager
def group(device: str) -> Iterator[tuple[Group, str]]:
    """The group that torchrun's environment describes, and the device of this process in it.

    Args:
        device: as a user names it; under torchrun "auto" and "cuda" become this process's own GPU.

    Raises:
        ValueError: an environment that names several processes but not where they meet, or one GPU for all of them.
    """
    said = os.environ.get("WORLD_SIZE", "1")
    if not said.isdecimal() or int(said) < 1:
        raise ValueError(f"WORLD_SIZE={said!r}: expected the number of processes; start with torchrun")
    ranks = int(said)
    if ranks == 1:
        yield ALONE, device
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"WORLD_SIZE={ranks} but {', '.join(missing)} not set: start with torchrun")
    if device.startswith("cuda:"):
        raise ValueError(f"device {device!r}: {ranks} processes take a GPU each; say cuda")
    on_gpu = torch.cuda.is_available() and meant(device) == "cuda"
    if on_gpu:
        device = f"cuda:{int(os.environ['LOCAL_RANK'])}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    yield Group(rank=int(os.environ["RANK"]), ranks=ranks, control=dist.new_group(backend="gloo")), device
    # After an error the others may be waiting in a collective: then only the end of this process frees them.
    dist.destroy_process_group()
