#!/usr/bin/env python3
"""Measures phi4flash's tokenizer and quicktok, the fastest other one that is exact, in turn on one core: bytes encoded a second of CPU time.

    tools/compare_tokenizers.py --tokenizer tokenizer.json TEXT...

The tokenizer is that of Phi-4-mini-flash, whose tokens are those of o200k_base; the texts are UTF-8 files of some 100 KB or more, best
one of each kind: English, code, other languages. Needs quicktok (pip install quicktok-v1) and our benchmark_tokenizer, which is built
where Google Benchmark is installed. The programs take turns, and the ratio is the median of those of the turns, so that a slow minute of the
machine hits both.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def ours(program, tokenizer, path):
    """(tokens, seconds)"""
    environment = dict(os.environ, PHI4FLASH_TOKENIZER=str(tokenizer), PHI4FLASH_TEXT=str(path))
    command = [program, "--benchmark_filter=encode", "--benchmark_format=json", "--benchmark_min_time=0.3"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"compare_tokenizers: {program}: {done.stderr.strip()}")
    run = json.loads(done.stdout)["benchmarks"][0]
    if run.get("error_occurred"):
        sys.exit(f"compare_tokenizers: {program}: {run['error_message']}")
    return int(run["tokens"]), run["cpu_time"] / {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1.0}[run["time_unit"]]


def theirs(encoding, text):
    """The same: the whole text at once, ids as an array, which is their fastest way."""
    times = []
    end = time.monotonic() + 0.3
    while not times or time.monotonic() < end:
        begin = time.process_time()
        ids, _ = encoding.encode_batch([text], 1, False)
        times.append(time.process_time() - begin)
    return len(ids), statistics.median(times)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--program", default=ROOT / "build/release/bin/benchmark_tokenizer", help="our benchmark")
    options.add_argument("--tokenizer", type=pathlib.Path, required=True, help="tokenizer.json of Phi-4-mini-flash, or its folder")
    options.add_argument("--turns", type=int, default=9)
    options.add_argument("text", type=pathlib.Path, nargs="+")
    o = options.parse_args()
    try:
        import quicktok
    except ImportError:
        sys.exit("compare_tokenizers: quicktok is not installed (pip install quicktok-v1)")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    encoding = quicktok.get_encoding("o200k_base")
    print("| text | phi4flash, MB/s | quicktok, MB/s | ratio |\n|---|---:|---:|---:|")
    for path in o.text:
        text = path.read_bytes().decode()
        size = len(text.encode())
        mine, other = [], []
        for _ in range(o.turns):
            (tokens, seconds), (their_tokens, their_seconds) = ours(o.program, o.tokenizer, path), theirs(encoding, text)
            if tokens != their_tokens:
                sys.exit(f"compare_tokenizers: {path}: {tokens} tokens, but {their_tokens} with quicktok: not the same tokenizer")
            mine.append(seconds)
            other.append(their_seconds)
        ratio = statistics.median(b / a for a, b in zip(mine, other))
        print(f"| {path.stem} | {size / statistics.median(mine) / 1e6:.0f} | {size / statistics.median(other) / 1e6:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
