"""A captured search step against an eager one, to the bit, where every sum has one order: a small perceptron.

Both ways run the same kernels on the same numbers, and none of them adds atomically. So scores, momenta and recorded
edges must be equal after every step.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.bench import Bench
from supermask.edges.in_model import searched_edges
from supermask.networks.convert import convert
from supermask.networks.small import MLP
from supermask.training import measures
from supermask.training.score_sgd import ScoreSGD

__all__ = ["Replays", "check_replays"]


@dataclass(frozen=True, kw_only=True)
class Replays:
    """What is compared."""

    sizes: tuple[int, ...] = (64, 96, 10)
    """Of the perceptron."""
    steps: int = 10
    images: int = 32


class _Search:
    """A network, its optimiser, and images that a step finds in one place."""

    def __init__(self, of: Replays, device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = convert(MLP(list(of.sizes)).to(device), seed=0, remaining=0.3)
        measures.track(self.model)
        self.lr = torch.tensor(0.1, device=device)
        self.optimiser = ScoreSGD(self.model, lr=self.lr, momentum=0.9, weight_decay=1e-4)
        generator = torch.Generator().manual_seed(1)
        self.batches = torch.randn(of.steps, of.images, of.sizes[0], generator=generator).to(device)
        self.labels = torch.randint(of.sizes[-1], (of.images,), generator=generator).to(device)
        self.images, self.device, self.dtype = self.batches[0].clone(), device, dtype

    def step(self) -> None:
        with self.optimiser.searching():
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
                loss = F.cross_entropy(self.model(self.images), self.labels)
            loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def bits(self) -> dict[str, Tensor]:
        found = {}
        for name, edges in searched_edges(self.model).items():
            momentum = self.optimiser.state[edges.scores]["momentum_buffer"]
            for what, tensor in (("scores", edges.scores), ("momentum", momentum), ("recorded edges", edges.ever)):
                found[f"{what} of {name}"] = tensor.detach().clone().view(torch.int32)
        return found


def check_replays(bench: Bench, of: Replays) -> dict[str, Any]:
    """Raise unless replays, with other images and another rate each time, give the bits of eager steps."""
    for dtype in (torch.float32, torch.bfloat16):
        eager, captured = (_Search(of, bench.device, dtype) for _ in range(2))
        replay = bench.timer.capture(captured.step)
        for _ in range(bench.timer.warm_up):
            eager.step()
        for index in range(of.steps):
            for one, run in ((eager, eager.step), (captured, replay)):
                one.images.copy_(one.batches[index])
                one.lr.fill_(0.1 / (1 + index))
                run()
            bench.timer.wait()
            theirs = captured.bits()
            wrong = [name for name, bits in eager.bits().items() if not torch.equal(bits, theirs[name])]
            if wrong:
                raise RuntimeError(
                    f"replay {index + 1} in {dtype} differs from an eager step in {len(wrong)} of {len(theirs)} "
                    f"tensors: {', '.join(wrong)}"
                )
    said = f"{of.steps} replays, float32 and bf16, each with the bits of an eager step"
    return {"steps": of.steps, "lines": [said]}
