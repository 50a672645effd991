"""Batch norm over the global batch of a data-parallel run."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from supermask.networks.norms import is_batch_norm
from supermask.training.parallel import Group


def synchronise(model: nn.Module, ranks: Group, device: torch.device) -> nn.Module:
    """Batch norms of `model` take their statistics over the global batch; names and state stay the same."""
    if ranks.ranks == 1:
        return model
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        for name, child in module.named_children():
            if is_batch_norm(child):
                setattr(module, name, _GlobalBatchNorm.like(child))
    return model


class _GlobalBatchNorm(nn.BatchNorm1d):
    """Batch norm over the global batch on CPU, where torch.nn.SyncBatchNorm does not run."""

    @classmethod
    def like(cls, norm: nn.BatchNorm1d) -> "_GlobalBatchNorm":
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made.__dict__.update({key: value for key, value in norm.__dict__.items() if not key.startswith("__")})
        return made

    def _check_input_dim(self, input: Tensor) -> None:
        """Any [batch, channels, ...]."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training or self.running_mean is None):
            return super().forward(input)
        others = [axis for axis in range(input.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(input.ndim)]
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        count = _sum(torch.tensor(values.numel() // values.shape[1], dtype=torch.float64))
        mean = _sum(values.sum(others)) / count
        centred = values - mean.view(shape)
        variance = _sum(centred.square().sum(others)) / count
        self._track(mean.detach(), (variance * count / (count - 1).clamp(min=1)).detach())
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _Sum(torch.autograd.Function):
    """Sum over the processes; the gradient of the sum is the sum of the gradients."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def _sum(values: Tensor) -> Tensor:
    return _Sum.apply(values)
