"""Draw edits per hour and peak memory against m, of this package and of the official code, from the stored results.

python benchmarks/draw.py            # writes docs/images/throughput.png
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from page import ROOT, lengths_of, measured_points

from malmen.figures.style import TEXT_WIDTH, theme

LOOKS = {
    "ours": ("#0072B2", "o", "-", "this package"),
    "cached": ("#56B4E9", "^", ":", "this package, from the cache of a grid"),
    "official": ("#D55E00", "s", "--", "official code"),
}
"""Colour, marker, line and name of each code."""
TITLES = {"bert-base": "BERT-base", "gpt2": "GPT-2"}
Point = tuple[int, float, float]


def curves(model: str) -> dict[str, list[Point]]:
    """Return each code's m, edits per hour and gigabytes, by growing m."""
    found: dict[str, list[Point]] = {code: [] for code in LOOKS}
    for _, point in measured_points():
        if point["model"] != model or lengths_of(point):
            continue
        for code, line in found.items():
            measured: dict[str, Any] | None = point["training step"].get(code)
            if measured:
                m = point["n_edits"]
                line.append((m, 3600 * m / measured["seconds"], measured["peak_bytes"] / 1e9))
    return found


def draw(axes: Axes, model: str, column: int) -> None:
    """Draw one number of one model against m."""
    ticks: set[int] = set()
    highest = 0.0
    for code, line in curves(model).items():
        colour, marker, style, name = LOOKS[code]
        m = [point[0] for point in line]
        ticks.update(m)
        highest = max(highest, *(point[column] for point in line))
        axes.plot(m, [point[column] for point in line], color=colour, marker=marker, linestyle=style, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(ticks), [f"{m:,}" for m in sorted(ticks)])
    axes.minorticks_off()
    axes.set_ylim(0, 1.12 * highest)
    axes.set_xlabel("number of edits $m$")


def main() -> None:
    """Draw the figure."""
    devices = {stored["processor"].partition(",")[0] for stored, _ in measured_points()}
    with theme():
        figure, grid = plt.subplots(1, 4, figsize=(TEXT_WIDTH, 1.9), layout="constrained")
        for number, (model, title) in enumerate(TITLES.items()):
            draw(grid[number], model, 1)
            draw(grid[2 + number], model, 2)
            for axes in (grid[number], grid[2 + number]):
                axes.set_title(title)
        grid[0].set_ylabel("edits per hour of one core\n(training step)")
        grid[2].set_ylabel("peak memory (GB)")
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
        figure.suptitle("; ".join(sorted(devices)), fontsize=7)
        figure.savefig(ROOT / "docs" / "images" / "throughput.png", dpi=300, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
