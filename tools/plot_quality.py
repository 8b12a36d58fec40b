#!/usr/bin/env python3
"""Draws what tools/quality.sh measured: the KL divergence from the unquantized model against the bytes of the file.

    tools/quality.sh MODEL TEXT --json | tools/plot_quality.py OUTPUT.svg

Needs matplotlib. Points have the standard error of their mean; unquantized files, whose divergence is zero, are left out.
"""
import json
import pathlib
import sys

import plot_style


def label(axes, points):
    """Types of the same size lie nearly on each other: the smallest file's names to the left, others' to the right, the better one below."""
    sizes = sorted({m["bytes"] for m in points})
    for size in sizes:
        same = sorted((m for m in points if m["bytes"] == size), key=lambda m: m["mean_kl"])
        left = size == sizes[0] and len(sizes) > 1
        for i, m in enumerate(same):
            name = pathlib.Path(m["model"]).stem.replace("-embedding_", ", embedding ")
            axes.annotate(name, (size / 1e3, m["mean_kl"]), textcoords="offset points", fontsize=9, ha="right" if left else "left",
                          xytext=(-9 if left else 9, 5 if i > 0 else -12 if len(same) > 1 else -3))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = json.load(sys.stdin)
    figure, axes = plot_style.new_plot()
    for activations, color, marker in (("int8", plot_style.ACCENT, "o"), ("f32", plot_style.MUTED, "s")):
        points = [m for m in found["models"] if m["activations"] == activations and m["mean_kl"] > 1e-6]
        if not points:
            continue
        axes.errorbar([m["bytes"] / 1e3 for m in points], [m["mean_kl"] for m in points], [m["mean_kl_error"] for m in points], fmt=marker,
                      color=color, markersize=5, capsize=2, label=f"{activations} activations")
        if activations == "int8":
            label(axes, points)
    axes.set_yscale("log")
    axes.set_xlabel("size of the file's weights, kB")
    axes.set_ylabel("mean KL divergence, nats")
    axes.margins(x=0.25, y=0.15)
    axes.legend(frameon=False)
    plot_style.save(figure, sys.argv[1])


if __name__ == "__main__":
    main()
