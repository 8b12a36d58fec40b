#!/usr/bin/env python3
"""Trains models/tiny-arithmetic, the demo checkpoint of this project, from scratch.

    python3 tools/train_demo_model.py                         train, evaluate, write the model folder
    python3 tools/train_demo_model.py --golden FOLDER         check this forward pass against a golden checkpoint
    python3 tools/train_demo_model.py --evaluate              score the folder that is already there
    python3 tools/train_demo_model.py --ask "What is 7 + 8?"  print one greedy answer of that folder

The model is a SambaY (Phi-4-mini-flash) of 8 layers in the released file layout. It answers integer problems in the
released chat format, working digit by digit before it commits to an answer:

    <|user|>What is 347 + 285?<|end|><|assistant|>7+5=12, carry 1
    4+8+1=13, carry 1
    3+2+1=6
    \\boxed{632}<|end|>

Needs torch and numpy, nothing else (on Debian: python3-torch python3-numpy libopenblas0-pthread; with the reference
BLAS instead of OpenBLAS it is many times slower). If the Hugging Face `tokenizers` package is installed, the
token ids made here are compared with it as well. The seed fixes the data and the initial weights; another BLAS or
thread count adds up in another order, and training then ends in a slightly different model.

Tensors are time-major, [T, B, ...], throughout: the scan walks over T, and each step then touches contiguous memory.
"""

import argparse
import ctypes
import hashlib
import json
import math
import random
import re
import struct
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
SEED = 20250711

# ------------------------------------------------------------------------------------------------ problems and answers


@dataclass(frozen=True)
class Problem:
    a: int
    op: str  # "+", "-" or "*"
    b: int

    def value(self):
        return {"+": self.a + self.b, "-": self.a - self.b, "*": self.a * self.b}[self.op]


def split_of(problem):
    """'test', 'validation' or 'train', from a hash of the problem: stable across runs and phrasings.

    a + b and b + a hash alike, so that the mirror image of a held-out problem is never trained on either.
    """
    a, b = problem.a, problem.b
    if problem.op != "-":
        a, b = min(a, b), max(a, b)
    bucket = hashlib.sha256(f"{a}{problem.op}{b}".encode()).digest()[0]
    return "test" if bucket < 38 else "validation" if bucket < 48 else "train"


def random_number(rng):
    low, high = rng.choices([(0, 9), (10, 99), (100, 999)], weights=[15, 30, 55])[0]
    return rng.randint(low, high)


def random_problem(rng, split):
    """+ and - up to three digits (a third of the differences negative), up to two digits times one."""
    while True:
        op = rng.choices("+-*", weights=[36, 42, 22])[0]
        if op == "*":
            a = rng.randint(10, 99) if rng.random() < 0.85 else rng.randint(0, 9)
            b = rng.randint(0, 9)
            if rng.random() < 0.3:
                a, b = b, a
        else:
            a, b = random_number(rng), random_number(rng)
            if op == "-" and a < b and rng.random() < 0.35:
                a, b = b, a
        problem = Problem(a, op, b)
        if split_of(problem) == split:
            return problem


def digits(n, width):
    """The decimal digits of n from the right, padded with zeros."""
    return [n // 10**i % 10 for i in range(width)]


def add_steps(a, b):
    width, carry, lines = max(len(str(a)), len(str(b))), 0, []
    for i, (x, y) in enumerate(zip(digits(a, width), digits(b, width))):
        total = x + y + carry
        line = f"{x}+{y}" + ("+1" if carry else "") + f"={total}"
        carry = total // 10
        lines.append(line + (", carry 1" if carry and i + 1 < width else ""))
    return lines


def subtract_steps(a, b):
    if a < b:
        return [f"{a}<{b}, so -({b}-{a})"] + subtract_steps(b, a)
    width, borrow, lines = len(str(a)), 0, []
    for x, y in zip(digits(a, width), digits(b, width)):
        short = x - y - borrow < 0  # the digit above has to lend ten
        left = x + 10 * short - y - borrow
        lines.append(f"{x + 10 * short}-{y}" + ("-1" if borrow else "") + f"={left}" + (", borrow 1" if short else ""))
        borrow = int(short)
    return lines


def multiply_steps(a, b):
    if a < 10:  # the number of two digits, if there is one, is taken apart
        a, b = b, a
    carry, lines, width = 0, [], len(str(a))
    for i, x in enumerate(digits(a, width)):
        product = x * b
        line = f"{x}*{b}={product}" + (f", {product}+{carry}={product + carry}" if carry else "")
        carry = (product + carry) // 10
        lines.append(line + (f", carry {carry}" if carry and i + 1 < width else ""))
    return lines


def reasoning(problem):
    steps = {"+": add_steps, "-": subtract_steps, "*": multiply_steps}[problem.op](problem.a, problem.b)
    return "\n".join(steps) + f"\n\\boxed{{{problem.value()}}}"


PHRASINGS = [  # (weight, text)
    (58, "What is {a} {op} {b}?"),
    (10, "What is {a} {word} {b}?"),
    (4, "What is {a}{op}{b}?"),
    (8, "{a} {op} {b}"),
    (4, "{a} {op} {b} ="),
    (4, "{a}{op}{b}"),
    (8, "Compute {a} {op} {b}."),
    (4, "Calculate {a} {op} {b}."),
]
INSTRUCTION = " Please reason step by step, and put your final answer within \\boxed{}."  # of the released model card
WORDS = {"+": "plus", "-": "minus", "*": "times"}


def question(problem, rng):
    op = rng.choices(["*", "×", "x"], weights=[70, 15, 15])[0] if problem.op == "*" else problem.op
    text = rng.choices([t for _, t in PHRASINGS], weights=[w for w, _ in PHRASINGS])[0]
    text = text.format(a=problem.a, b=problem.b, op=op, word=WORDS[problem.op])
    return text + (INSTRUCTION if rng.random() < 0.08 else "")


def held_out(count):
    """The problems of tests/data: distinct, never trained on, drawn like the training problems. "text" is the whole chat."""
    rng, seen, rows = random.Random(SEED + 1), set(), []
    while len(rows) < count:
        problem = random_problem(rng, "test")
        if problem not in seen:
            seen.add(problem)
            asked = question(problem, rng)
            text = f"<|user|>{asked}<|end|><|assistant|>{reasoning(problem)}<|end|>"
            rows.append({"prompt": asked, "answer": str(problem.value()), "text": text})
    return rows


# ------------------------------------------------------------------------------------------------------------ tokenizer

SPLIT_REGEX = (  # of the released tokenizer.json
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The same, for texts whose only letters and digits are ASCII: Python's re has no \p{..}, and ours are such texts.
ASCII_SPLIT = re.compile(
    r"[^\r\nA-Za-z0-9]?[A-Z]*[a-z]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\nA-Za-z0-9]?[A-Z]+[a-z]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[0-9]{1,3}| ?[^\sA-Za-z0-9]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = [  # (text, swallows white space after it, special): order and flags of the released model
    ("<|endoftext|>", False, True),
    ("<|endofprompt|>", False, True),
    ("<|assistant|>", True, True),
    ("<|end|>", True, True),
    ("<|user|>", True, True),
    ("<|system|>", True, True),
    ("<|tool|>", True, False),
    ("<|/tool|>", True, False),
    ("<|tool_call|>", True, False),
    ("<|/tool_call|>", True, False),
    ("<|tool_response|>", True, False),
    ("<|tag|>", True, True),
]
VOCAB = 384
FIRST_SPECIAL = 368  # as in the released vocabulary, ids just below and above the special tokens have no text
CHAT_TEMPLATE = (  # of the released model, to the letter
    "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not "
    "none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + "
    "'<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)


def byte_alphabet():
    """GPT-2's printable stand-in for each byte, in the order of the ids 0..255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def merge_pair(pieces, pair):
    out, i = [], 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            out.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            out.append(pieces[i])
            i += 1
    return out


def learn_merges(counts):
    """Byte-pair encoding, run until every word is one token. `counts`: word (in the byte alphabet) -> occurrences."""
    words, merges = {w: list(w) for w in counts}, []
    while True:
        pairs = Counter()
        for word, pieces in words.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] += counts[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        words = {w: merge_pair(pieces, best) for w, pieces in words.items()}


class Tokenizer:
    """Byte-level BPE over the words of the training texts. Digits never merge: one digit, one token."""

    def __init__(self):
        self.alphabet = byte_alphabet()
        rng, counts = random.Random(SEED + 2), Counter()
        for _ in range(4000):
            problem = random_problem(rng, "train")
            for text in (question(problem, rng), reasoning(problem)):
                counts.update(self.spell(w) for w in ASCII_SPLIT.findall(text) if not w.isdigit())
        self.merges = learn_merges(counts)
        self.vocab = {c: i for i, c in enumerate(self.alphabet.values())}
        for left, right in self.merges:
            self.vocab[left + right] = len(self.vocab)
        assert len(self.vocab) <= FIRST_SPECIAL, f"{len(self.vocab)} tokens do not fit below the special ones"
        self.special = {text: FIRST_SPECIAL + i for i, (text, _, _) in enumerate(SPECIAL_TOKENS)}
        self.words = {}

    def spell(self, word):
        return "".join(self.alphabet[b] for b in word.encode())

    def encode_word(self, word):
        if word not in self.words:
            pieces = list(self.spell(word))
            for pair in self.merges:  # in order of rank; few enough that nothing smarter pays
                pieces = merge_pair(pieces, pair)
            self.words[word] = [self.vocab[p] for p in pieces]
        return self.words[word]

    def encode(self, text):
        """Ids of a text without special tokens."""
        return [i for word in ASCII_SPLIT.findall(text) for i in self.encode_word(word)]

    def decode(self, ids):
        to_text, to_byte = {i: t for t, i in self.vocab.items()}, {c: b for b, c in self.alphabet.items()}
        return bytes(to_byte[c] for i in ids for c in to_text.get(int(i), "")).decode(errors="replace")

    def prompt(self, text):
        return [self.special["<|user|>"], *self.encode(text), self.special["<|end|>"], self.special["<|assistant|>"]]

    def added_tokens(self):
        return [
            dict(id=self.special[t], content=t, single_word=False, lstrip=False, rstrip=r, normalized=False, special=s)
            for t, r, s in SPECIAL_TOKENS
        ]

    def json(self):
        split = {"type": "Split", "pattern": {"Regex": SPLIT_REGEX}, "behavior": "Removed", "invert": True}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": self.added_tokens(),
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                # The special tokens are listed here too: the Hugging Face library numbers added tokens it does not
                # find in the vocabulary by position, whatever id they carry.
                "vocab": {**self.vocab, **self.special},
                "merges": [list(pair) for pair in self.merges],
            },
        }

    def config_json(self):
        keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        return {
            "add_bos_token": False,
            "add_eos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {str(t["id"]): {k: t[k] for k in keys} for t in self.added_tokens()},
            "bos_token": "<|endoftext|>",
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|endoftext|>",
            "model_max_length": 65536,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "GPT2Tokenizer",
            "unk_token": "<|endoftext|>",
        }


def check_tokenizer(tokenizer, count=3000):
    """Compares whole chats, special tokens included, with the Hugging Face library if that is installed."""
    try:
        import tokenizers
    except ImportError:
        print("tokenizer: the tokenizers package is not installed, comparison skipped")
        return
    reference, rng = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.json())), random.Random(SEED + 3)
    for _ in range(count):
        problem = random_problem(rng, "train")
        asked, answered = question(problem, rng), reasoning(problem)
        want = reference.encode(f"<|user|>{asked}<|end|><|assistant|>{answered}<|end|>").ids
        have = tokenizer.prompt(asked) + tokenizer.encode(answered) + [tokenizer.special["<|end|>"]]
        assert have == want, (asked, answered, have, want)
    print(f"tokenizer: {count} chats encode as tokenizers {tokenizers.__version__} does")


# ---------------------------------------------------------------------------------------------------------------- model


@dataclass
class Shape:
    """The fields of config.json, under their names there."""

    vocab_size: int = VOCAB
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


class SelectiveScan(torch.autograd.Function):
    """h[t] = exp(dt[t] A) h[t-1] + (dt u)[t] B[t];  y[t] = sum_n C[t] h[t].   dt, u, y [T,B,D]; A [D,N]; B, C [T,B,N].

    Written by hand because autograd would keep half a dozen tensors of the size of h and launch as many operations a
    step. h is laid out [N,T,B,D]: a step is one fused multiply-add for all n, and everything else runs one n at a time,
    on pieces that fit the cache.
    `keep` [T,B] is 0 where a new conversation starts in a packed row: the state does not cross that border.
    """

    @staticmethod
    def forward(ctx, dt, u, A, B, C, keep):
        du, keep = dt * u, keep.unsqueeze(-1)
        decay, h = dt.new_empty(A.shape[1], *dt.shape), dt.new_empty(A.shape[1], *dt.shape)
        for n in range(len(h)):
            torch.mul(dt, A[:, n], out=decay[n]).exp_().mul_(keep)
            torch.mul(du, B[..., n : n + 1], out=h[n])
        h_steps, decay_steps = h.unbind(1), decay.unbind(1)
        for t in range(1, len(dt)):
            h_steps[t].addcmul_(decay_steps[t], h_steps[t - 1])
        y = torch.zeros_like(dt)
        for n in range(len(h)):
            y.addcmul_(h[n], C[..., n : n + 1])
        ctx.save_for_backward(dt, u, A, B, C, decay, h)
        return y

    @staticmethod
    def backward(ctx, gy):
        dt, u, A, B, C, decay, h = ctx.saved_tensors
        gy, du = gy.contiguous(), dt * u
        gh, gA, gB, gC = torch.empty_like(h), torch.empty_like(A), torch.empty_like(B), torch.empty_like(C)
        for n in range(len(h)):
            torch.mul(gy, C[..., n : n + 1], out=gh[n])
            torch.sum(h[n] * gy, -1, out=gC[..., n])
        gh_steps, decay_steps = gh.unbind(1), decay.unbind(1)
        for t in range(len(dt) - 2, -1, -1):
            gh_steps[t].addcmul_(decay_steps[t + 1], gh_steps[t + 1])
        gdt, gdu = torch.zeros_like(dt), torch.zeros_like(dt)
        for n in range(len(h)):
            gdu.addcmul_(gh[n], B[..., n : n + 1])
            torch.sum(gh[n] * du, -1, out=gB[..., n])
            gexponent = gh[n, 1:].mul_(h[n, :-1]).mul_(decay[n, 1:])  # step 0 has no state before it
            gdt[1:].addcmul_(gexponent, A[:, n])
            torch.sum(gexponent.mul_(dt[1:]), (0, 1), out=gA[:, n])
        return gdt.addcmul_(gdu, u), gdu.mul_(dt), gA, gB, gC, None


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


# ------------------------------------------------------------------------------------------------------- files on disk


def is_f32(name):
    """The released checkpoint keeps these in F32 and everything else in BF16."""
    return name.endswith("A_log") or ".lambda_" in name


def rounded(model):
    """A copy of the model with its weights as the file will hold them."""
    copy = SambaY(model.s)
    copy.load_state_dict({n: p if is_f32(n) else p.bfloat16().float() for n, p in model.state_dict().items()})
    return copy.eval()


def write_safetensors(path, tensors):
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in tensors.items():
        if is_f32(name):
            dtype, blob = "F32", tensor.float().numpy().tobytes()
        else:
            dtype, blob = "BF16", tensor.bfloat16().view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_safetensors(path):
    """Floating point tensors come back in F32, whatever they are stored in."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    kinds = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64}
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + o for o in entry["data_offsets"])
        array = np.frombuffer(data[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = torch.from_numpy(array.astype(np.int64 if entry["dtype"] == "I64" else np.float32))
    return tensors


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def model_config(s, tokenizer):
    end_of_text = tokenizer.special["<|endoftext|>"]
    return {
        "architectures": ["Phi4FlashForCausalLM"],
        "model_type": "phi4flash",
        **asdict(s),
        "hidden_act": "silu",
        "mb_per_layer": 2,
        "mlp_bias": False,
        "lm_head_bias": False,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def write_folder(folder, model, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    end_of_text, end = tokenizer.special["<|endoftext|>"], tokenizer.special["<|end|>"]
    write_json(folder / "config.json", model_config(model.s, tokenizer))
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": end_of_text,
            "eos_token_id": [end, end_of_text],
            "do_sample": False,  # arithmetic has one right answer
            "pad_token_id": end_of_text,
        },
    )
    write_json(folder / "tokenizer.json", tokenizer.json())
    write_json(folder / "tokenizer_config.json", tokenizer.config_json())
    write_safetensors(folder / "model.safetensors", model.state_dict())


def read_folder(folder):
    model = SambaY(Shape.from_config(json.loads((folder / "config.json").read_text())))
    tensors = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors.update(read_safetensors(path))
    model.load_state_dict(tensors)
    return model.eval()


README = """# tiny-arithmetic

A toy SambaY (the architecture of Phi-4-mini-flash-reasoning) for demos and tests: {parameters:,} parameters, {layers}
layers, {size:.2f} MiB, in the released file layout (BF16, with `A_log` and `lambda_*` in F32; tied embeddings) and with
the released chat template and stop tokens. It was trained from scratch by this project on generated problems: no
weights, text or output of any other model went into it.

It adds and subtracts whole numbers up to 999 (negative results included) and multiplies up to two digits by one, digit
by digit and from the right, and puts the answer in a box. It knows nothing else.

{transcripts}
Conversations of two or three questions were part of its training, but only first answers have been scored.

| | |
|---|---|
| accuracy | {right} of {asked} held-out problems ({percent:.1f} %), greedy, F32 arithmetic on the rounded weights |
| held-out problems | `tests/data/arithmetic_held_out.jsonl`; chosen by a hash of the problem, never trained on |
| training | {steps} steps of about {tokens} tokens, {minutes:.0f} minutes with {threads} torch thread(s) |
| command | `python3 tools/train_demo_model.py` |
| vocabulary | {vocab} ids: 256 bytes, {merges} merges, 12 special tokens from {first}; one digit is one token; the rest unused |
| licence | MIT, as the project |
"""


# ------------------------------------------------------------------------------------------------------------- training


def conversation(tokenizer, rng, turns, limit):
    """Ids of up to `turns` questions and answers that fit `limit`, and for each id whether it is to be learnt."""
    ids, learn = [], []
    for _ in range(turns):
        problem = random_problem(rng, "train")
        asked = tokenizer.prompt(question(problem, rng))
        answered = tokenizer.encode(reasoning(problem)) + [tokenizer.special["<|end|>"]]
        if ids and len(ids) + len(asked) + len(answered) > limit:
            break
        ids += asked + answered
        learn += [False] * len(asked) + [True] * len(answered)
    return ids, learn


class Packer:
    """Fills rows of `length` tokens with whole conversations, so that hardly any work is spent on padding."""

    def __init__(self, s, tokenizer, rows, length):
        self.s, self.tokenizer, self.rows, self.length = s, tokenizer, rows, length
        self.rng, self.waiting = random.Random(SEED + 4), None

    def next_conversation(self, several):
        turns = self.rng.randint(2, 3) if self.rng.random() < several else 1
        return conversation(self.tokenizer, self.rng, turns, self.length)

    def batch(self, several):
        """`several`: the share of conversations with more than one question. Returns a Batch and targets [T, B]."""
        tokens = np.full((self.rows, self.length), self.tokenizer.special["<|endoftext|>"])
        segment, targets = np.full_like(tokens, -1), np.full_like(tokens, -100)  # -100: not learnt
        for row in range(self.rows):
            begin = number = 0
            while True:
                ids, learn = self.waiting or self.next_conversation(several)
                end = begin + len(ids)
                self.waiting = (ids, learn) if end > self.length else None
                if self.waiting:
                    break
                tokens[row, begin:end], segment[row, begin:end] = ids, number
                targets[row, begin : end - 1] = np.where(learn, ids, -100)[1:]
                begin, number = end, number + 1
        tokens, segment, targets = (torch.from_numpy(x.T.copy()) for x in (tokens, segment, targets))
        return Batch(self.s, tokens, segment), targets


def make_optimizer(model, rate):
    """Weight decay on matrices only: not on norms, biases, A, D, lambda and the embedding."""
    matrices, others = [], []
    for name, p in model.named_parameters():
        matrix = name.endswith("weight") and p.dim() == 2 and "embed" not in name
        (matrices if matrix else others).append(p)
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), foreach=True)


def schedule(step, steps, warmup=60):
    """Linear warm-up, then a cosine to (almost) zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


@torch.no_grad()
def validate(model, tokenizer, count=300):
    """The share of unseen transcripts predicted token for token, in one teacher-forced pass: quick, and strict."""
    rng, chats, targets = random.Random(SEED + 5), [], []
    for _ in range(count):
        problem = random_problem(rng, "validation")
        asked = tokenizer.prompt(question(problem, rng))
        answered = tokenizer.encode(reasoning(problem)) + [tokenizer.special["<|end|>"]]
        chats.append(asked + answered)
        targets.append([-100] * (len(asked) - 1) + answered)
    length = max(map(len, chats))
    tokens = torch.tensor([c + [0] * (length - len(c)) for c in chats]).t()
    wanted = torch.tensor([t + [-100] * (length - len(t)) for t in targets]).t()
    best = model.logits(model.hidden(Batch(model.s, tokens))).argmax(-1)
    return ((best == wanted) | (wanted == -100)).all(0).float().mean().item()


@torch.no_grad()
def generate(model, tokenizer, prompts, limit=120):
    """Greedy answers, as ids without the stop token. Recomputes from scratch at each step: slow, and hard to get wrong."""
    stops = {tokenizer.special["<|end|>"], tokenizer.special["<|endoftext|>"]}
    rows, starts = [list(p) for p in prompts], [len(p) for p in prompts]
    alive = list(range(len(rows)))
    for _ in range(limit):
        if not alive:
            break
        length = max(len(rows[i]) for i in alive)
        tokens = torch.tensor([rows[i] + [0] * (length - len(rows[i])) for i in alive]).t()
        hidden = model.hidden(Batch(model.s, tokens))
        last = torch.stack([hidden[len(rows[i]) - 1, j] for j, i in enumerate(alive)])
        for i, token in zip(list(alive), model.logits(last).argmax(-1).tolist()):
            if token in stops:
                alive.remove(i)
            else:
                rows[i].append(token)
    return [row[start:] for row, start in zip(rows, starts)]


def boxed(text):
    found = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return found[-1] if found else None


def evaluate(model, tokenizer, rows, shown=10):
    """The number of held-out problems answered correctly; prints the first few that were not."""
    right = 0
    for begin in range(0, len(rows), 125):
        part = rows[begin : begin + 125]
        answers = generate(model, tokenizer, [tokenizer.prompt(r["prompt"]) for r in part])
        for row, ids in zip(part, answers):
            text = tokenizer.decode(ids)
            if boxed(text) == row["answer"]:
                right += 1
            elif shown:
                shown -= 1
                print(f"  wrong: {row['prompt']!r} is {row['answer']}, got {text!r}")
    return right


def keep_freed_memory():
    """Stops glibc from returning every freed tensor to the system: faulting the pages back in costs as much as the maths."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass  # another C library: slower, not wrong


def train(options, tokenizer):
    """Trains, writing the folder whenever the validation score is the best so far. Returns the seconds it took."""
    torch.manual_seed(SEED)
    model = SambaY(Shape())
    initialize(model)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {torch.get_num_threads()} threads")
    packer = Packer(model.s, tokenizer, options.rows, options.length)
    optimizer = make_optimizer(model, options.rate)
    start, best, total, seen = time.time(), -1.0, 0.0, 0
    for step in range(options.steps):
        # One question at a time first; whole conversations once single answers work.
        batch, targets = packer.batch(several=0.3 if step > options.steps // 2 else 0.0)
        learnt = targets != -100
        loss = F.cross_entropy(model.logits(model.hidden(batch)[learnt]), targets[learnt])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = options.rate * schedule(step, options.steps)
        optimizer.step()
        total, seen = total + loss.item(), seen + 1
        if (step + 1) % 20 == 0:
            elapsed = time.time() - start
            left = elapsed / (step + 1) * (options.steps - step - 1)
            print(f"step {step + 1:5}/{options.steps}  loss {total / seen:.5f}  {elapsed:5.0f} s  {left:5.0f} s left", flush=True)
            total, seen = 0.0, 0
        if (step + 1) % options.check == 0 or step + 1 == options.steps:
            candidate = rounded(model)
            score = validate(candidate, tokenizer)
            print(f"step {step + 1:5}  validation: {100 * score:.1f} % of transcripts exact", flush=True)
            if score >= best:
                best = score
                write_folder(options.out, candidate, tokenizer)
    return time.time() - start


def transcripts(model, tokenizer, prompts):
    answers = generate(model, tokenizer, [tokenizer.prompt(p) for p in prompts])
    return "\n".join(f"```\n> {p}\n{tokenizer.decode(a)}\n```\n" for p, a in zip(prompts, answers))


def write_readme(options, model, tokenizer, right, asked, seconds):
    examples = transcripts(model, tokenizer, ["What is 347 + 285?", "What is 204 - 619?", "What is 47 * 6?"])
    text = README.format(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=model.s.num_hidden_layers,
        size=sum(f.stat().st_size for f in options.out.iterdir() if f.is_file()) / 2**20,
        transcripts=examples,
        right=right,
        asked=asked,
        percent=100 * right / asked,
        steps=options.steps,
        tokens=options.rows * options.length,
        minutes=seconds / 60,
        threads=torch.get_num_threads(),
        vocab=VOCAB,
        merges=len(tokenizer.merges),
        first=FIRST_SPECIAL,
    )
    (options.out / "README.md").write_text(text, encoding="utf-8")


# ------------------------------------------------------------------------------------------------- golden check, main


@torch.no_grad()
def check_golden(folder, tolerance=2e-4):
    """Every residual stream, the logits and the greedy tokens of a golden checkpoint. Returns the process's exit code."""
    model, golden = read_folder(folder), read_safetensors(folder / "golden.safetensors")
    worst, same = 0.0, True
    for j in sorted({name.split(".")[0] for name in golden}, key=int):
        tokens = golden[f"{j}.tokens"]
        batch = Batch(model.s, tokens[:, None])
        names = [f"{j}.embed"] + [f"{j}.layer.{i}" for i in range(model.s.num_hidden_layers)]
        streams = [(n, x[:, 0]) for n, x in zip(names, model.residual_streams(batch))]
        hidden = model.model.final_layernorm(streams[-1][1])
        streams += [(f"{j}.final_norm", hidden), (f"{j}.logits", model.logits(hidden))]
        errors = {name: (have - golden[name]).abs().max().item() for name, have in streams}
        worst = max(worst, *errors.values())
        for token in golden[f"{j}.greedy"]:
            best = model.logits(model.hidden(Batch(model.s, tokens[:, None]))[-1, 0]).argmax()
            same, tokens = same and bool(best == token), torch.cat([tokens, token[None]])
        print(f"prompt {j}: {len(batch.tokens)} tokens, logits differ by at most {errors[f'{j}.logits']:.1e}")
    print(f"worst difference of any stream {worst:.1e}, greedy tokens {'agree' if same else 'DIFFER'}")
    return 0 if worst < tolerance and same else 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "tiny-arithmetic", help="the model folder")
    parser.add_argument("--held-out", type=Path, default=ROOT / "tests" / "data" / "arithmetic_held_out.jsonl")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--rows", type=int, default=24, help="rows of a batch")
    parser.add_argument("--length", type=int, default=160, help="tokens of a row")
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--check", type=int, default=100, help="validate every so many steps")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch likes")
    parser.add_argument("--golden", type=Path, metavar="FOLDER", help="only check against this golden checkpoint")
    parser.add_argument("--evaluate", action="store_true", help="only score the folder")
    parser.add_argument("--ask", metavar="QUESTION", help="only answer this")
    return parser.parse_args()


def main():
    options = parse_arguments()
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.golden:
        return check_golden(options.golden)
    tokenizer = Tokenizer()
    if options.ask:
        model = read_folder(options.out)
        print(tokenizer.decode(generate(model, tokenizer, [tokenizer.prompt(options.ask)])[0]))
        return 0
    rows = held_out(500)
    if options.evaluate:
        print(f"{evaluate(read_folder(options.out), tokenizer, rows)} of {len(rows)} right")
        return 0
    check_tokenizer(tokenizer)
    options.held_out.parent.mkdir(parents=True, exist_ok=True)
    options.held_out.write_text("".join(json.dumps(r, ensure_ascii=True) + "\n" for r in rows), encoding="utf-8")
    seconds = train(options, tokenizer)
    model = read_folder(options.out)  # what is scored is what the file says
    right = evaluate(model, tokenizer, rows)
    print(f"{right} of {len(rows)} held-out problems right ({100 * right / len(rows):.1f} %), trained for {seconds:.0f} s")
    write_readme(options, model, tokenizer, right, len(rows), seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
