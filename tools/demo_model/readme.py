"""The README.md of the model folder: what the model is, examples of its answers, its score, how it was made."""

import torch

from .evaluate import generate
from .tokenizer import FIRST_SPECIAL, VOCAB

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
| command | `python3 tools/train_demo_model.py --force` |
| vocabulary | {vocab} ids: 256 bytes, {merges} merges, 12 special tokens from {first}; one digit is one token; the rest unused |
| licence | MIT, as the project |
"""


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
