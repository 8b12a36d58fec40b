"""Training: conversations packed into batches, the optimizer and its schedule, and the loop."""

import math
import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .data import SEED, random_problem
from .evaluate import validate
from .export import rounded, write_folder
from .model import Batch, SambaY, Shape, initialize
from .tokenizer import VOCAB


def conversation(tokenizer, rng, turns, limit):
    """Ids of up to `turns` questions and answers that fit `limit`, and for each id whether it is to be learnt."""
    ids, learn = [], []
    for _ in range(turns):
        problem = random_problem(rng, "train")
        asked, answered = tokenizer.exchange(problem, rng)
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


def train(options, tokenizer):
    """Trains, writing the folder whenever the validation score is the best so far. Returns the seconds it took."""
    torch.manual_seed(SEED)
    model = SambaY(Shape(vocab_size=VOCAB))
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
