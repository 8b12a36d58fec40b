"""What a model answers and how often that is right; and whether its forward pass is that of a golden checkpoint."""

import random
import re

import torch

from .data import SEED, random_problem
from .export import read_folder, read_safetensors
from .model import Batch


@torch.no_grad()
def validate(model, tokenizer, count=300):
    """The share of unseen transcripts predicted token for token, in one teacher-forced pass: quick, and strict."""
    rng, chats, targets = random.Random(SEED + 5), [], []
    for _ in range(count):
        problem = random_problem(rng, "validation")
        asked, answered = tokenizer.exchange(problem, rng)
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
