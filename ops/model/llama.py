"""The Llama decoder as it is trained: plain PyTorch, dropout included, nothing cached.

Parameter names are those of Hugging Face's LlamaForCausalLM, so that the state dict is the
checkpoint. RoPE turns the two halves of a head (x[i], x[i + d/2]), as that layout expects.
"""
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of one model; the defaults are the demo model's."""
    hidden: int = 256
    layers: int = 8
    q_heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    mlp: int = 768
    vocab: int = 4096
    context: int = 2048
    rope_theta: float = 10000.0
    rms_eps: float = 1e-5


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return (x.float() * scale * self.weight).to(x.dtype)


def rotate(x, cos, sin):
    """x [batch, heads, tokens, head_dim]; cos and sin [tokens, head_dim]."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        q_size, kv_size = shape.q_heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, q_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv_size, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv_size, bias=False)
        self.o_proj = nn.Linear(q_size, shape.hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, tokens, _ = x.shape
        group = self.shape.q_heads // self.shape.kv_heads

        def heads(projected):
            return projected.view(batch, tokens, -1, self.shape.head_dim).transpose(1, 2)
        q = rotate(heads(self.q_proj(x)), cos, sin)
        k = rotate(heads(self.k_proj(x)), cos, sin).repeat_interleave(group, dim=1)
        v = heads(self.v_proj(x)).repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, tokens, -1))


class MLP(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.down_proj = nn.Linear(shape.mlp, shape.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, shape, dropout):
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.rms_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.rms_eps)
        self.mlp = MLP(shape)
        self.dropout = dropout

    def forward(self, x, cos, sin):
        out = self.self_attn(self.input_layernorm(x), cos, sin)
        x = x + F.dropout(out, self.dropout, self.training)
        out = self.mlp(self.post_attention_layernorm(x))
        return x + F.dropout(out, self.dropout, self.training)


class Decoder(nn.Module):
    def __init__(self, shape, dropout):
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, shape.rms_eps)


class Llama(nn.Module):
    """ids [batch, tokens] -> logits [batch, tokens, vocab]; the output head is the embedding."""

    def __init__(self, shape, dropout=0.0):
        super().__init__()
        self.shape, self.dropout = shape, dropout
        self.model = Decoder(shape, dropout)
        angle = torch.outer(
            torch.arange(shape.context).float(),
            shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim))
        angle = torch.cat((angle, angle), dim=-1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter,
                                std=0.02 / math.sqrt(2 * shape.layers) if out else 0.02)

    def forward(self, ids):
        tokens = ids.shape[1]
        x = F.dropout(self.model.embed_tokens(ids), self.dropout, self.training)
        for block in self.model.layers:
            x = block(x, self.cos[:tokens], self.sin[:tokens])
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def compile_blocks(self):
        """All blocks share one compiled program, which takes seconds instead of a minute."""
        for block in self.model.layers:
            block.compile()
