#!/usr/bin/env python3
"""Trains models/tiny-arithmetic, the demo checkpoint of this project, from scratch.

    python3 tools/train_demo_model.py --force                 train, evaluate, write the model folder anew
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

The parts are in tools/demo_model/.
"""

import argparse
import ctypes
import json
import sys
from pathlib import Path

import torch

from demo_model.data import held_out
from demo_model.evaluate import check_golden, evaluate, generate
from demo_model.export import read_folder
from demo_model.readme import write_readme
from demo_model.tokenizer import Tokenizer, check_tokenizer
from demo_model.train import train

ROOT = Path(__file__).resolve().parent.parent


def keep_freed_memory():
    """Stops glibc from returning every freed tensor to the system: faulting the pages back in costs as much as the maths."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass  # another C library: slower, not wrong


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "tiny-arithmetic", help="the model folder")
    parser.add_argument("--force", action="store_true", help="replace the weights that the folder holds")
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
    if not options.force and any(options.out.glob("*.safetensors")):
        sys.exit(f"train_demo_model: {options.out} holds weights: want another --out, or --force to replace them")
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
