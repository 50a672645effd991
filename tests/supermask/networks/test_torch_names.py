"""Names that torch may come without, since they are private: all works where they are missing."""

import subprocess
import sys

WITHOUT = """
import torch
from torch import nn

import torch._subclasses.fake_tensor

names = [
    (torch._subclasses.fake_tensor, "FakeTensor"),
    (nn.modules.batchnorm, "_BatchNorm"),
    (nn.modules.batchnorm, "_NormBase"),
]
held = [getattr(module, name) for module, name in names]
for module, name in names:
    delattr(module, name)
from supermask.edges.in_model import searched_edges
from supermask.networks.convert import convert
from supermask.networks.norms import NORMS, is_batch_norm
from supermask.training.evaluate import batch_norms, recalibrate
from supermask.training.score_sgd import ScoreSGD
import supermask.tickets.save, supermask.training.global_norm

for (module, name), value in zip(names, held):
    setattr(module, name, value)  # torch itself uses them

norms = [nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.BatchNorm3d(4), nn.SyncBatchNorm(4)]
assert all(isinstance(norm, NORMS) and is_batch_norm(norm) for norm in norms)
others = [nn.InstanceNorm1d(4), nn.InstanceNorm2d(4), nn.InstanceNorm3d(4), nn.LayerNorm(4)]
assert all(isinstance(norm, NORMS) and not is_batch_norm(norm) for norm in others)
model = convert(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)), seed=0)
assert model[1].weight is None and batch_norms(model) == [model[1]]
optimiser, x = ScoreSGD(model, lr=0.1), torch.randn(8, 8)
for _ in range(2):
    with optimiser.searching():
        model(x).square().mean().backward()
    optimiser.step()
    optimiser.zero_grad()
recalibrate(model, [(x, x)])
assert all(int(edges.kept) for edges in searched_edges(model).values())
"""


def test_all_works_without_private_names_of_torch() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
