"""Masked attention against torch's own."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from supermask.networks.convert import convert
from supermask.networks.layers import (
    SupermaskLinear,
)
from tests.devices import DEVICE
from tests.supermask.networks.layer_cases import attention, draw


def check_attention(dense: Any, masked: Any, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> None:
    torch.manual_seed(3)
    expected, expected_weights = dense(query, key, value, **kwargs)
    torch.manual_seed(3)
    out, weights = masked(query, key, value, **kwargs)
    assert torch.equal(out, expected)
    assert (weights is None) == (expected_weights is None)
    if weights is not None:
        assert torch.equal(weights, expected_weights)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_is_the_dense_one(batch_first: bool, bias: bool) -> None:
    dense, masked = attention(batch_first=batch_first, bias=bias)
    x, memory, other = draw(2, 5, 12), draw(2, 7, 12, seed=1), draw(2, 7, 12, seed=2)
    if not batch_first:
        x, memory, other = x.transpose(0, 1), memory.transpose(0, 1), other.transpose(0, 1)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2], device=DEVICE)
    above = torch.triu(torch.ones(5, 5, dtype=torch.bool, device=DEVICE), 1)
    check_attention(dense, masked, x, x, x)
    check_attention(dense, masked, x, x, x, need_weights=False)
    check_attention(dense, masked, x, x, x, average_attn_weights=False)
    check_attention(dense, masked, x, x, x, key_padding_mask=padding)
    check_attention(dense, masked, x, x, x, attn_mask=above)
    check_attention(dense, masked, x, x, x, attn_mask=above, need_weights=False, is_causal=True)
    # The hint counts, not the mask: torch trusts it where nothing else forces the mask to be read.
    check_attention(dense, masked, x, x, x, attn_mask=draw(5, 5) * 0, need_weights=False, is_causal=True)
    check_attention(dense, masked, x, x, x, attn_mask=draw(6, 5, 5), need_weights=False)
    check_attention(dense, masked, x, memory, memory)
    check_attention(dense, masked, x, memory, other)
    check_attention(dense, masked, x, memory, other, need_weights=False)
    check_attention(dense, masked, draw(5, 12), draw(7, 12), draw(7, 12, seed=4))


def test_attention_with_dropout_and_a_zero_key() -> None:
    dense, masked = attention(dropout=0.5, add_zero_attn=True, batch_first=True)
    x = draw(2, 5, 12)
    check_attention(dense, masked, x, x, x)
    with torch.no_grad():
        trained = masked(x, x, x)[0]
    # In eval mode the original takes a fused path of its own unless something requires grad.
    dense.eval(), masked.eval()
    check_attention(dense, masked, x.clone().requires_grad_(), x, x)
    assert not torch.equal(masked(x, x, x)[0], trained)


def test_attention_gradients_reach_both_projections() -> None:
    dense, masked = attention(batch_first=True)
    x = draw(2, 5, 12)
    dense(x, x, x)[0].square().sum().backward()
    masked(x, x, x)[0].square().sum().backward()
    for weight, layer in ((dense.in_proj_weight, masked.in_proj), (dense.out_proj.weight, masked.out_proj)):
        options = {"seed": 1, "layer": layer.edges.layer, "remaining": 1.0, "device": DEVICE}
        theta = SupermaskLinear(layer.in_features, layer.out_features, **options)
        sign = torch.where(layer.edges.scores.detach() < 0, -1.0, 1.0)
        assert torch.equal(layer.edges.scores.grad, weight.grad * theta.weight.detach() * sign)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_inside_torchs_transformers(batch_first: bool, grad: bool) -> None:
    """Their eval mode looks for dense projection weights for a fused kernel, and must see that there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        layer = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=batch_first)
        encoder = convert(nn.TransformerEncoder(layer, 2), 0, bias="freeze", norm="freeze").to(DEVICE)
        whole = convert(nn.Transformer(12, 2, 1, 1, 24, dropout=0.0, batch_first=batch_first), 0).to(DEVICE)
        x = draw(2, 5, 12)
        padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2], device=DEVICE)
        with torch.set_grad_enabled(grad):
            for kwargs in ({}, {"src_key_padding_mask": padding}):
                source = x if batch_first else x.transpose(0, 1)
                assert torch.equal(encoder.eval()(source, **kwargs), encoder.train()(source, **kwargs))
            assert torch.equal(whole.eval()(source, source), whole.train()(source, source))
