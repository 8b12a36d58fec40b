#!/usr/bin/env python3
"""Chooses seeds from what tools/fuzz.sh has kept: the inputs that together reach the most edges beyond those of fuzz/seeds/ENTRY.

    tools/choose_seeds.py ENTRY COUNT

Copies them from build/fuzz/corpus/ENTRY to fuzz/seeds/ENTRY as reached_HASH, and says how many edges each adds. CTest replays them from then on.
tools/fuzz.sh ENTRY must have run before.
"""
import argparse
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def edges_of(entry, folders):
    """Paths, and the edges that each of them reaches."""
    with tempfile.TemporaryDirectory() as folder:
        control = pathlib.Path(folder, "control")
        chosen = pathlib.Path(folder, "chosen")
        chosen.mkdir()
        done = subprocess.run([ROOT / "build/fuzz" / entry, "-set_cover_merge=1", "-use_counters=0", "-use_cmp=0", f"-merge_control_file={control}",
                               chosen, *folders], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"choose_seeds: {entry}: exit code {done.returncode}: {done.stderr[-500:]}")
        lines = control.read_text().splitlines()
    count = int(lines[0])  # of files; then how many of them were there before, their names, and a line for each with what it reaches
    found = {pathlib.Path(name): set() for name in lines[2:2 + count]}
    names = list(found)
    for line in lines[2 + count:]:
        words = line.split()
        if words and words[0] == "FT":
            found[names[int(words[1])]].update(map(int, words[2:]))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", metavar="ENTRY", help="of fuzz/")
    parser.add_argument("count", metavar="COUNT", type=int, help="how many, at most")
    options = parser.parse_args()
    entry, count = options.entry, options.count
    seeds = ROOT / "fuzz/seeds" / entry
    corpus = ROOT / "build/fuzz/corpus" / entry
    for needed in (ROOT / "build/fuzz" / entry, corpus, seeds):
        if not needed.exists():
            sys.exit(f"choose_seeds: {needed}: not there: run tools/fuzz.sh {entry} first")
    found = edges_of(entry, [corpus, seeds])
    every = set().union(*found.values())
    reached = set().union(*(edges for path, edges in found.items() if path.parent == seeds))
    left = {path: edges for path, edges in found.items() if path.parent != seeds}
    print(f"{entry}: {len(reached)} of {len(every)} edges by {len(found) - len(left)} seeds")
    for _ in range(count):
        best = max(left, key=lambda path: (len(left[path] - reached), -path.stat().st_size), default=None)
        if best is None or not left[best] - reached:
            break
        new = left.pop(best) - reached
        reached |= new
        name = f"reached_{hashlib.sha1(best.read_bytes()).hexdigest()[:8]}"
        shutil.copyfile(best, seeds / name)
        print(f"  {name}: {best.stat().st_size} bytes, {len(new)} edges more, {len(reached)} in all", flush=True)


if __name__ == "__main__":
    main()
