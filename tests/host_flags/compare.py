#!/usr/bin/env python3
"""Runs programs built from numbers.cpp and says where the later ones print other numbers than the first.

    compare.py MODEL_FOLDER PLAIN OTHER...

Flags such as -ffast-math change the order of sums and the last bits, and nothing else: numbers are equal within 2e-5 of the largest of
their kind, codes exactly but for ties.
"""
import subprocess
import sys

TOLERANCE = {"logit": 2e-5, "softplus": 1e-6, "silu": 1e-6, "softmax": 3e-6, "code": 0.0}


def numbers_of(program, folder):
    run = subprocess.run([program, folder], capture_output=True, text=True, check=False, timeout=300)
    if run.returncode != 0:
        sys.exit(f"{program}: exit {run.returncode}: {run.stderr.strip()}")
    kinds = {}
    for line in run.stdout.splitlines():
        kind, number = line.split()
        kinds.setdefault(kind, []).append(float(number))
    return kinds


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    folder, plain, *others = sys.argv[1:]
    want = numbers_of(plain, folder)
    failed = 0
    for kind in TOLERANCE:
        if not want.get(kind) or not all(abs(x) < 1e30 for x in want[kind]):
            sys.exit(f"{plain}: no finite numbers of kind {kind}")
    for other in others:
        have = numbers_of(other, folder)
        for kind, tolerance in TOLERANCE.items():
            if len(have.get(kind, [])) != len(want[kind]):
                sys.exit(f"{other}: {len(have.get(kind, []))} numbers of kind {kind}, want {len(want[kind])}")
            largest = max(map(abs, want[kind]))
            worst = max(abs(a - b) if a == a else float("inf") for a, b in zip(have[kind], want[kind])) / largest
            print(f"{other}: {kind}: {worst:.2g} of the largest, at most {tolerance:.2g}")
            failed += not worst <= tolerance
    if failed:
        sys.exit(f"compare: {failed} kinds of numbers differ from those of {plain}")


if __name__ == "__main__":
    main()
