"""A case of each masked layer beside its torch.nn layer, and small networks of them, on the device that tests take."""

from typing import Any

import torch
from torch import Tensor, nn

from supermask.networks.attention import SupermaskMultiheadAttention
from supermask.networks.layers import (
    SupermaskConv1d,
    SupermaskConv2d,
    SupermaskConv3d,
    SupermaskConvTranspose1d,
    SupermaskConvTranspose2d,
    SupermaskConvTranspose3d,
    SupermaskLinear,
)
from tests.devices import DEVICE, On

# Masked class, its torch.nn layer, arguments of both, input shape. Channel counts, kernels and strides differ from each
# other everywhere, so that a swapped pair of arguments or dimensions cannot go unseen.
CASES: dict[str, tuple[Any, Any, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "linear": (SupermaskLinear, nn.Linear, (37, 11), {}, (5, 37)),
    "linear_1d": (SupermaskLinear, nn.Linear, (37, 11), {}, (37,)),
    "linear_4d": (SupermaskLinear, nn.Linear, (131, 3), {}, (2, 3, 2, 131)),
    "conv1d": (SupermaskConv1d, nn.Conv1d, (6, 8, 3), {"stride": 2, "padding": 1}, (2, 6, 17)),
    "conv1d_unbatched": (SupermaskConv1d, nn.Conv1d, (6, 8, 3), {}, (6, 17)),
    "conv1d_groups": (SupermaskConv1d, nn.Conv1d, (6, 8, 5), {"groups": 2, "dilation": 3, "padding": 4}, (2, 6, 17)),
    "conv1d_same": (SupermaskConv1d, nn.Conv1d, (6, 8, 4), {"padding": "same", "dilation": 3}, (2, 6, 17)),
    "conv1d_reflect": (SupermaskConv1d, nn.Conv1d, (6, 8, 3), {"padding": 2, "padding_mode": "reflect"}, (2, 6, 17)),
    "conv2d": (
        SupermaskConv2d, nn.Conv2d, (6, 9, (3, 2)),
        {"stride": (2, 1), "padding": (1, 3), "dilation": (1, 2), "groups": 3}, (2, 6, 11, 7),
    ),
    "conv2d_depthwise": (SupermaskConv2d, nn.Conv2d, (6, 12, 3), {"groups": 6, "padding": 1}, (2, 6, 5, 7)),
    "conv2d_valid": (SupermaskConv2d, nn.Conv2d, (6, 9, (3, 2)), {"padding": "valid", "stride": 3}, (2, 6, 11, 7)),
    "conv2d_same": (SupermaskConv2d, nn.Conv2d, (6, 9, (4, 2)), {"padding": "same"}, (2, 6, 11, 7)),
    "conv2d_same_circular": (
        SupermaskConv2d, nn.Conv2d, (6, 9, (4, 3)),
        {"padding": "same", "dilation": (1, 2), "padding_mode": "circular"}, (2, 6, 11, 7),
    ),
    "conv2d_valid_reflect": (
        SupermaskConv2d, nn.Conv2d, (6, 9, 3), {"padding": "valid", "padding_mode": "reflect"}, (2, 6, 11, 7),
    ),
    "conv2d_reflect": (
        SupermaskConv2d, nn.Conv2d, (6, 9, 3),
        {"padding": (3, 1), "padding_mode": "reflect", "stride": (1, 2)}, (2, 6, 11, 7),
    ),
    "conv2d_replicate": (
        SupermaskConv2d, nn.Conv2d, (6, 9, 3), {"padding": (2, 0), "padding_mode": "replicate"}, (2, 6, 11, 7),
    ),
    "conv3d": (
        SupermaskConv3d, nn.Conv3d, (4, 6, (1, 2, 3)),
        {"stride": (1, 2, 1), "padding": (0, 1, 2), "dilation": (2, 1, 1), "groups": 2}, (2, 4, 3, 5, 7),
    ),
    "conv3d_same": (SupermaskConv3d, nn.Conv3d, (4, 6, (1, 2, 3)), {"padding": "same"}, (2, 4, 3, 5, 7)),
    "conv3d_circular": (
        SupermaskConv3d, nn.Conv3d, (4, 6, 2), {"padding": (0, 1, 2), "padding_mode": "circular"}, (2, 4, 3, 5, 7),
    ),
    "transpose1d": (
        SupermaskConvTranspose1d, nn.ConvTranspose1d, (6, 8, 4),
        {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2}, (2, 6, 7),
    ),
    "transpose2d": (
        SupermaskConvTranspose2d, nn.ConvTranspose2d, (6, 9, (3, 2)),
        {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "dilation": (1, 2), "groups": 3}, (2, 6, 5, 4),
    ),
    "transpose2d_unbatched": (SupermaskConvTranspose2d, nn.ConvTranspose2d, (6, 9, 3), {}, (6, 5, 4)),
    "transpose3d": (
        SupermaskConvTranspose3d, nn.ConvTranspose3d, (4, 6, (1, 2, 3)),
        {"stride": (1, 2, 3), "padding": (0, 1, 0), "output_padding": (0, 1, 2), "groups": 2}, (2, 4, 3, 2, 4),
    ),
}  # fmt: skip

ONE_OF_EACH = ["linear", "conv1d", "conv2d", "conv3d", "transpose1d", "transpose2d", "transpose3d"]

SEED = 0x0123456789ABCDEF


def make(name: str, **search: Any) -> Any:
    kind, _, args, kwargs, _ = CASES[name]
    if isinstance(search.get("bias"), Tensor):
        search["bias"] = On(DEVICE)(search["bias"])
    return kind(*args, **kwargs, **{"seed": SEED, "layer": 3, "remaining": 0.3, "device": DEVICE, **search})


def dense_with(name: str, weight: Tensor, bias: Tensor | None = None) -> Any:
    """The torch.nn layer of a case, holding `weight` and `bias`."""
    _, dense, args, kwargs, _ = CASES[name]
    layer = dense(*args, **kwargs, bias=bias is not None, device=weight.device)
    with torch.no_grad():
        layer.weight = nn.Parameter(weight.detach().clone())
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def input_of(name: str, seed: int = 0) -> Tensor:
    return draw(*CASES[name][4], seed=seed)


def attention(**kwargs: Any) -> tuple[nn.MultiheadAttention, SupermaskMultiheadAttention]:
    """The original, and the masked one, with the same effective weights and biases."""
    torch.manual_seed(0)
    dense = nn.MultiheadAttention(12, 3, **kwargs, device=DEVICE)
    biases: list[Tensor | None] = [None, None]
    if dense.in_proj_bias is not None:
        nn.init.normal_(dense.in_proj_bias)
        nn.init.normal_(dense.out_proj.bias)
        biases = [dense.in_proj_bias.detach().clone(), dense.out_proj.bias.detach().clone()]
    into = SupermaskLinear(12, 36, biases[0], seed=1, layer=0, device=DEVICE)
    out = SupermaskLinear(12, 12, biases[1], seed=1, layer=1, device=DEVICE)
    with torch.no_grad():
        dense.in_proj_weight.copy_(into.weight)  # type: ignore[union-attr]
        dense.out_proj.weight.copy_(out.weight)
    return dense, SupermaskMultiheadAttention(dense, into, out)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def small_network(**search: Any) -> nn.Module:
    search = {"seed": 0, "remaining": 0.3, "device": DEVICE, **search}
    return nn.Sequential(
        SupermaskConv2d(3, 8, 3, padding=1, layer=0, **search),
        nn.BatchNorm2d(8, affine=False, device=search["device"]),
        nn.ReLU(),
        SupermaskConv2d(8, 16, 3, stride=2, layer=1, **search),
        nn.BatchNorm2d(16, affine=False, device=search["device"]),
        nn.ReLU(),
        nn.Flatten(),
        SupermaskLinear(144, 10, layer=2, **search),
    )
