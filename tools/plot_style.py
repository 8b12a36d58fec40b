"""How the plots of these tools look; importing it sets matplotlib up. The same data give the same bytes. Needs matplotlib."""
import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

pyplot.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "phi4flash"})

ACCENT = "#1f6feb"  # what the plot is about
MUTED = "#9a9a9a"  # what it is compared with


def new_plot():
    """A figure and its axes."""
    return pyplot.subplots(figsize=(6.4, 3.6), layout="tight")


def save(figure, path):
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
