#!/usr/bin/env python3
"""Measures phi4flash and llama.cpp in turn on this machine: prefill against the prompt's length, decode against the depth, and what
decode keeps of its speed while other threads are busy.

    tools/compare.py --model MODEL.gguf --rival RIVAL.gguf [--llama-bench COMMAND] [--output FOLDER]
    tools/compare.py --draw docs/speed.json --output docs       draws the plots of an earlier measurement again

llama.cpp does not run SambaY models, so its model should be one of the same size and the same bits: Phi-4-mini in Q4_0. Give the
machine nothing else to do. Every point is measured several times, the programs taking turns, and the median is kept. Writes
table.md, results.json and, where matplotlib is installed, prefill.svg and decode.svg into the output folder.
"""
import argparse
import datetime
import json
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


PHASES = ("prefill", "decode", "busy")


def say(text):
    print(f"compare: {text}", file=sys.stderr, flush=True)


def output_of(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        sys.exit(f"compare: {shlex.join(command)}\n  failed: {last}")
    return done.stdout


class Ours:
    name = "phi4flash"

    def __init__(self, program, model, threads, extra):
        self.command = [str(program), "bench", "--model", model, "--threads", str(threads), "--repetitions", "1", "--json", *extra]

    def prefill(self, tokens):
        found = json.loads(output_of([*self.command, "-p", str(tokens), "-n", "0"]))
        return found["prefill_tokens_per_second"]["median"], None

    def decode(self, depth, tokens):
        found = json.loads(output_of([*self.command, "-p", "0", "-n", str(tokens), "-d", str(depth)]))
        return found["decode_tokens_per_second"]["median"], found["ratio"]


class Rival:
    name = "llama.cpp"

    def __init__(self, command, model, threads, extra):
        self.command = [*shlex.split(command), "-m", model, "-t", str(threads), "-r", "1", "-o", "json", *extra]
        self.about = f"{self.name}, {pathlib.Path(model).stem}"  # what it is and what it runs, as far as it has said so

    def run(self, *options):
        found = json.loads(output_of([*self.command, *map(str, options)]))[-1]
        self.about = f"{self.name} b{found['build_number']} ({found['build_commit']}), {found['model_type']}"
        return found["avg_ts"]

    def prefill(self, tokens):
        return self.run("-p", tokens, "-n", 0), None

    def decode(self, depth, tokens):
        return self.run("-p", 0, "-n", tokens, "-d", depth), None


def measure(programs, point, phase, repetitions, tokens):
    """{name: median, ...}; the programs take turns, so that a slow minute of the machine hits both."""
    series = {p.name: [] for p in programs}
    shares = []
    for turn in range(repetitions):
        for p in programs:
            speed, share = p.prefill(point) if phase == "prefill" else p.decode(point, tokens)
            series[p.name].append(speed)
            if share is not None:
                shares.append(share)
            say(f"{phase} {point}, turn {turn + 1} of {repetitions}: {p.name} {speed:.2f} tokens/s")
    found = {name: statistics.median(s) for name, s in series.items()}
    found["turns"] = repetitions
    if shares:
        found["bandwidth"] = statistics.median(shares)
    return found


class BusyThreads:
    """So many threads that do nothing but compute, each a process of its own."""

    def __init__(self, count):
        self.count = count

    def __enter__(self):
        self.running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(self.count)]
        time.sleep(1)

    def __exit__(self, *_):
        for process in self.running:
            process.kill()
            process.wait()


def measure_busy(programs, busy, repetitions, tokens):
    """{name: median speed, name + " keeps": median share of the undisturbed speed just before, ...}"""
    series = {p.name: [] for p in programs}
    for turn in range(repetitions):
        for p in programs:
            quiet, _ = p.decode(0, tokens)
            with BusyThreads(busy):
                speed, _ = p.decode(0, tokens)
            series[p.name].append((speed, speed / quiet))
            say(f"{busy} busy threads, turn {turn + 1} of {repetitions}: {p.name} {speed:.2f} of {quiet:.2f} tokens/s")
    found = {"turns": repetitions}
    for name, turns in series.items():
        found[name] = statistics.median(speed for speed, _ in turns)
        found[name + " keeps"] = statistics.median(kept for _, kept in turns)
    return found


def table(results):
    lines = []
    ours, rival = Ours.name, Rival.name
    if results["prefill"]:
        lines += ["| prompt | " + ours + " | " + rival + " | ratio | turns |", "|---:|---:|---:|---:|---:|"]
        for n, v in results["prefill"].items():
            lines.append(f"| {n} | {v[ours]:.1f} | {v[rival]:.1f} | {v[ours] / v[rival]:.2f} | {v['turns']} |")
        lines.append("")
    if results["decode"]:
        lines += ["| depth | " + ours + " | of what the machine can read | " + rival + " | ratio | turns |", "|---:|---:|---:|---:|---:|---:|"]
        for n, v in results["decode"].items():
            lines.append(f"| {n} | {v[ours]:.2f} | {100 * v['bandwidth']:.0f} % | {v[rival]:.2f} | {v[ours] / v[rival]:.2f} | {v['turns']} |")
        lines.append("")
    if results["busy"]:
        lines += ["| busy threads | " + ours + " | keeps | " + rival + " | keeps | turns |", "|---:|---:|---:|---:|---:|---:|"]
        for n, v in results["busy"].items():
            mine, other = (f"{v[who]:.2f} | {100 * v[who + ' keeps']:.0f} %" for who in (ours, rival))
            lines.append(f"| {n} | {mine} | {other} | {v['turns']} |")
        lines.append("")
    lines.append(f"Tokens a second, medians, against {results['rival']}. {latest_sitting(results)}; `tools/compare.py`.")
    return "\n".join(lines) + "\n"


def latest_sitting(results):
    """The sitting of most points: a machine and a commit on one day."""
    return statistics.mode(v["sitting"] for phase in PHASES for v in results[phase].values())


def plot(results, folder):
    try:
        import plot_style
    except ImportError:
        say("no plots: matplotlib is not installed (python3-matplotlib)")
        return
    labels = {"prefill": ("tokens in the prompt", "prompt tokens a second"), "decode": ("tokens before", "new tokens a second")}
    sitting = latest_sitting(results)
    for phase, (x_label, y_label) in labels.items():
        points = results[phase]
        if not points:
            continue
        figure, axes = plot_style.new_plot()
        x = list(points)
        others = [n for n in x if points[n]["sitting"] != sitting]
        for key, name, color in ((Ours.name, Ours.name, plot_style.ACCENT), (Rival.name, results["rival"], plot_style.MUTED)):
            axes.plot(x, [points[n][key] for n in x], marker="o", color=color, linewidth=2, label=name)
            axes.plot(others, [points[n][key] for n in others], linestyle="none", marker="o", markerfacecolor="white", color=color)
        if others:
            axes.plot([], [], linestyle="none", marker="o", markerfacecolor="white", color="black", label="measured in another sitting")
        axes.set_xticks(x, [f"{n:,}" for n in x], rotation=45 if len(x) > 4 else 0)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(frameon=False)
        plot_style.save(figure, folder / f"{phase}.svg")


def describe_machine():
    name = platform.processor() or platform.machine()
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return name


def read_results(path):
    results = json.loads(path.read_text())
    return results | {phase: {int(n): v for n, v in results[phase].items()} for phase in PHASES}


def numbers(text):
    return [int(n) for n in text.split(",") if n]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--phi4flash", default=ROOT / "build/release/bin/phi4flash", help="our program")
    options.add_argument("--draw", type=pathlib.Path, metavar="RESULTS.json", help="measure nothing, draw the plots of these results")
    options.add_argument("--model", help="our packed file")
    options.add_argument("--llama-bench", default="llama-bench", help="llama.cpp's benchmark: a command, with arguments if need be")
    options.add_argument("--rival", help="llama.cpp's model, as that command sees it")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--prompts", type=numbers, default=[128, 512, 1024, 4096], metavar="N,N,...")
    options.add_argument("--depths", type=numbers, default=[0, 1024, 4096], metavar="N,N,...")
    options.add_argument("--busy", type=numbers, default=[], metavar="N,N,...", help="decode beside so many threads that only compute")
    options.add_argument("--tokens", type=int, default=32, help="new tokens a measurement")
    options.add_argument("--repetitions", type=int, default=3)
    options.add_argument("--options", default="", help="more options of phi4flash bench")
    options.add_argument("--rival-options", default="", help="more options of llama-bench: --no-warmup halves the time of long prompts")
    options.add_argument("--output", type=pathlib.Path, default=ROOT / "build/compare")
    options.add_argument("--keep", action="store_true", help="keep what the output folder has of other points; those of another sitting are marked")
    o = options.parse_args()
    if o.draw:
        plot(read_results(o.draw), o.output)
        return
    if not o.model or not o.rival:
        options.error("want --model and --rival, or --draw")
    programs = [Ours(o.phi4flash, o.model, o.threads, shlex.split(o.options)),
                Rival(o.llama_bench, o.rival, o.threads, shlex.split(o.rival_options))]
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    o.output.mkdir(parents=True, exist_ok=True)
    kept = o.output / "results.json"
    results = read_results(kept) if o.keep and kept.exists() else {phase: {} for phase in PHASES}
    sitting = f"{describe_machine()}, {o.threads} threads, {datetime.date.today()}, commit {commit or 'unknown'}"
    # Points take minutes: each is written as soon as it is there.
    for phase, points in (("prefill", o.prompts), ("decode", o.depths), ("busy", o.busy)):
        for point in points:
            if phase == "busy":
                results[phase][point] = measure_busy(programs, point, o.repetitions, o.tokens)
            else:
                results[phase][point] = measure(programs, point, phase, o.repetitions, o.tokens)
            results[phase][point]["sitting"] = sitting
            results[phase] = dict(sorted(results[phase].items()))
            results["rival"] = programs[1].about
            kept.write_text(json.dumps(results, indent=1) + "\n")
            (o.output / "table.md").write_text(table(results))
    plot(results, o.output)
    print(table(results), end="")
    say(f"written to {o.output}")


if __name__ == "__main__":
    main()
