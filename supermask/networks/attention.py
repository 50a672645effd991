"""Multi-head attention whose projections are masked."""

import torch.nn.functional as F
from torch import Tensor, nn

from supermask.networks.layers import SupermaskLinear


class SupermaskMultiheadAttention(nn.Module):
    """nn.MultiheadAttention whose input and output projections are searched layers; call it as the original.

    The three input projections are one layer `in_proj` of shape [3 * embed_dim, embed_dim], as torch stores them.
    """

    # Where nn.TransformerEncoderLayer looks whether it can hand dense projection weights to a fused kernel: it cannot.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, dense: nn.MultiheadAttention, in_proj: SupermaskLinear, out_proj: SupermaskLinear) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.dropout = dense.embed_dim, dense.num_heads, dense.dropout
        self.batch_first, self.add_zero_attn = dense.batch_first, dense.add_zero_attn
        self.in_proj, self.out_proj = in_proj, out_proj

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        batched = query.dim() == 3
        if self.batch_first and batched:
            # torch recognises self-attention by identity, and then makes one product of three.
            moved = {id(t): t.transpose(0, 1) for t in (query, key, value)}
            query, key, value = moved[id(query)], moved[id(key)], moved[id(value)]
        in_weight, in_bias = self.in_proj.parts(query)
        out_weight, out_bias = self.out_proj.parts(query)
        out, attention = F.multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, in_weight, in_bias, None, None, self.add_zero_attn,
            self.dropout, out_weight, out_bias, training=self.training, key_padding_mask=key_padding_mask,
            need_weights=need_weights, attn_mask=attn_mask, average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )  # fmt: skip
        return (out.transpose(0, 1) if self.batch_first and batched else out), attention
