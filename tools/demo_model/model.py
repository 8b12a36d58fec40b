"""SambaY (Phi-4-mini-flash) in torch, with the released tensor names, for training and for whole sequences: no caches.

Tensors are time-major, [T, B, ...], throughout: the scan walks over T, and each step then touches contiguous memory.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .scan import SelectiveScan


@dataclass
class Shape:
    """The fields of config.json, under their names there."""

    vocab_size: int
    hidden_size: int = 96
    intermediate_size: int = 208
    num_hidden_layers: int = 8
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    sliding_window: int = 64
    mamba_d_state: int = 8
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_dt_rank: int = 6
    layer_norm_eps: float = 1e-5

    @property
    def d_inner(self):
        return self.mamba_expand * self.hidden_size

    @property
    def d_head(self):
        return self.hidden_size // self.num_attention_heads

    @property
    def half(self):
        return self.num_hidden_layers // 2

    @staticmethod
    def from_config(config):
        d_model = config["hidden_size"]
        known = {"mamba_d_state": 16, "mamba_dt_rank": math.ceil(d_model / 16)}  # defaults of the released class
        known.update({k: v for k, v in config.items() if k in Shape.__dataclass_fields__ and v is not None})
        if isinstance(known["sliding_window"], list):
            known["sliding_window"] = next(w for w in known["sliding_window"] if w)
        return Shape(**known)


class Mamba(nn.Module):
    def __init__(self, s):
        super().__init__()
        d, n, r = s.d_inner, s.mamba_d_state, s.mamba_dt_rank
        self.split = [r, n, n]
        self.in_proj = nn.Linear(s.hidden_size, 2 * d, bias=False)
        self.conv1d = nn.Conv1d(d, d, s.mamba_d_conv, groups=d)  # holds the weights; convolve() does the work
        self.x_proj = nn.Linear(d, r + 2 * n, bias=False)
        self.dt_proj = nn.Linear(r, d)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, n + 1.0)).repeat(d, 1))
        self.D = nn.Parameter(torch.ones(d))
        self.out_proj = nn.Linear(d, s.hidden_size, bias=False)

    def convolve(self, u, batch):
        """Depthwise and causal; the last tap is the current token. Taps never reach into another conversation."""
        weight = self.conv1d.weight[:, 0]
        out = u * weight[:, -1] + self.conv1d.bias
        for back in range(1, min(weight.shape[1], len(u))):
            out = out + F.pad(u[:-back] * batch.same[back - 1] * weight[:, -1 - back], (0, 0, 0, 0, back, 0))
        return out

    def forward(self, x, batch, shared):
        u, z = self.in_proj(x).chunk(2, -1)
        u = F.silu(self.convolve(u, batch))
        dt, B, C = self.x_proj(u).split(self.split, -1)
        dt = F.softplus(self.dt_proj(dt))
        y = SelectiveScan.apply(dt, u, -torch.exp(self.A_log), B, C, batch.keep) + self.D * u
        shared["memory"] = y  # before the gate; layer `half` is the last to write it, the GMUs read it
        return self.out_proj(y * F.silu(z))


class GatedMemoryUnit(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.in_proj = nn.Linear(s.hidden_size, s.d_inner, bias=False)
        self.out_proj = nn.Linear(s.d_inner, s.hidden_size, bias=False)

    def forward(self, x, batch, shared):
        return self.out_proj(F.silu(self.in_proj(x)) * shared["memory"])


class Lambda(nn.Module):
    """The learned weight of the second attention map, and the norm after the difference."""

    def __init__(self, s, layer):
        super().__init__()
        self.base = 0.8 - 0.6 * math.exp(-0.3 * layer)
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            setattr(self, name, nn.Parameter(torch.randn(s.d_head) * 0.1))
        self.subln = nn.Module()
        self.subln.weight = nn.Parameter(torch.ones(2 * s.d_head))

    def value(self):
        first, second = self.lambda_q1 @ self.lambda_k1, self.lambda_q2 @ self.lambda_k2
        return first.exp() - second.exp() + self.base

    def normalize(self, o):
        return o * torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + 1e-5) * self.subln.weight * (1 - self.base)


class DifferentialAttention(nn.Module):
    """Heads pair by parity. A window layer, the full layer half+1, or a cross layer over the full layer's K and V."""

    def __init__(self, s, layer):
        super().__init__()
        self.s, self.full, self.cross = s, layer > s.half, layer > s.half + 1
        kv = 0 if self.cross else 2 * s.num_key_value_heads * s.d_head
        self.Wqkv = nn.Linear(s.hidden_size, s.hidden_size + kv)
        self.out_proj = nn.Linear(s.hidden_size, s.hidden_size)
        self.inner_cross_attn = Lambda(s, layer)

    def keys_and_values(self, kv):
        """K [B, pair, parity, T, d] and V [B, pair, T, 2d], each key/value pair repeated for its query pairs."""
        T, B, _ = kv.shape
        k, v = kv.view(T, B, 2, self.s.num_key_value_heads // 2, 2, self.s.d_head).unbind(2)
        k, v = k.permute(1, 2, 3, 0, 4), v.permute(1, 2, 0, 3, 4).flatten(3)
        group = self.s.num_attention_heads // self.s.num_key_value_heads
        return k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)

    def forward(self, x, batch, shared):
        T, B, D = x.shape
        q, kv = self.Wqkv(x).split([D, self.Wqkv.out_features - D], -1)
        if not self.cross:
            shared["kv"] = self.keys_and_values(kv)
        k, v = shared["kv"]
        q = q.view(T, B, -1, 2, self.s.d_head).permute(1, 2, 3, 0, 4)
        mask = batch.full_mask if self.full else batch.window_mask
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.s.d_head) + mask, -1)
        weights = weights[:, :, 0] - self.inner_cross_attn.value() * weights[:, :, 1]
        o = self.inner_cross_attn.normalize(weights @ v)  # [B, pair, T, 2d]
        return self.out_proj(o.permute(2, 0, 1, 3).reshape(T, B, D))


class Mlp(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.fc1 = nn.Linear(s.hidden_size, 2 * s.intermediate_size, bias=False)
        self.fc2 = nn.Linear(s.intermediate_size, s.hidden_size, bias=False)

    def forward(self, x):
        gate, up = self.fc1(x).chunk(2, -1)
        return self.fc2(up * F.silu(gate))


class Layer(nn.Module):
    def __init__(self, s, layer):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(s.hidden_size, s.layer_norm_eps)
        self.post_attention_layernorm = nn.LayerNorm(s.hidden_size, s.layer_norm_eps)
        self.mlp = Mlp(s)
        if layer % 2:
            self.attn = DifferentialAttention(s, layer)
        else:
            self.attn = Mamba(s) if layer <= s.half else GatedMemoryUnit(s)

    def forward(self, x, batch, shared):
        x = x + self.attn(self.input_layernorm(x), batch, shared)
        return x + self.mlp(self.post_attention_layernorm(x))


class SambaY(nn.Module):
    """Parameters carry the released tensor names."""

    def __init__(self, s):
        super().__init__()
        self.s, self.model = s, nn.Module()
        self.model.embed_tokens = nn.Embedding(s.vocab_size, s.hidden_size)
        self.model.layers = nn.ModuleList(Layer(s, i) for i in range(s.num_hidden_layers))
        self.model.final_layernorm = nn.LayerNorm(s.hidden_size, s.layer_norm_eps)

    def residual_streams(self, batch):
        """The embedding, then the residual stream after each layer, each [T, B, d_model]."""
        x, shared = self.model.embed_tokens(batch.tokens), {}
        yield x
        for layer in self.model.layers:
            x = layer(x, batch, shared)
            yield x

    def hidden(self, batch):
        *_, last = self.residual_streams(batch)
        return self.model.final_layernorm(last)

    def logits(self, hidden):
        return hidden @ self.model.embed_tokens.weight.t()


class Batch:
    """Tokens [T, B] and what keeps the conversations packed into one row apart. `segment` [T, B] numbers them."""

    def __init__(self, s, tokens, segment=None):
        T, _ = tokens.shape
        segment = torch.zeros_like(tokens) if segment is None else segment
        self.tokens = tokens
        self.same = [(segment[back:] == segment[:-back]).float().unsqueeze(-1) for back in range(1, s.mamba_d_conv)]
        self.keep = torch.ones(tokens.shape)
        self.keep[1:] = (segment[1:] == segment[:-1]).float()
        rows = segment.t()
        distance = torch.arange(T)[:, None] - torch.arange(T)[None, :]
        full = (rows[:, :, None] == rows[:, None, :]) & (distance >= 0)
        self.full_mask = self.additive(full)
        self.window_mask = self.additive(full & (distance < s.sliding_window))

    @staticmethod
    def additive(allowed):
        return torch.zeros(allowed.shape).masked_fill_(~allowed, -1e30)[:, None, None]


def initialize(model):
    """Mamba's own recipe for dt and A; elsewhere 1/sqrt(fan-in), and residual branches start small."""
    s = model.s
    for name, p in model.named_parameters():
        if name.endswith(("in_proj.weight", "Wqkv.weight", "fc1.weight", "x_proj.weight", "dt_proj.weight")):
            nn.init.normal_(p, std=p.shape[1] ** -0.5)
        elif name.endswith(("out_proj.weight", "fc2.weight")):
            nn.init.normal_(p, std=(2 * s.num_hidden_layers * p.shape[1]) ** -0.5)
        elif name.endswith("embed_tokens.weight"):
            nn.init.normal_(p, std=0.05)
        elif name.endswith("dt_proj.bias"):  # dt between 0.001 and 0.1, through the inverse of softplus
            dt = torch.exp(torch.rand_like(p) * math.log(100) + math.log(0.001))
            p.data.copy_(dt + torch.log(-torch.expm1(-dt)))
        elif name.endswith(("Wqkv.bias", "out_proj.bias")):
            nn.init.zeros_(p)
