"""Draw edits per hour and peak memory against m, of this package and of the official code, from the stored results.

python benchmarks/draw.py            # writes docs/images/throughput.png and, of a GPU, throughput_gpu.png
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "agg"  # before matplotlib is imported, as in malmen.figures

from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from page import ROOT, lengths_of, measured_points, on_gpu

from malmen.figures.style import TEXT_WIDTH, theme

LOOKS = {
    "ours": ("#0072B2", "o", "-", "this package"),
    "cached": ("#56B4E9", "^", ":", "this package, from the cache of a grid"),
    "official": ("#D55E00", "s", "--", "official code"),
}
"""Colour, marker, line and name of each code."""
TITLES = {"bert-base": "BERT-base", "gpt2": "GPT-2"}
Point = tuple[int, float, float]


def curves(model: str, gpu: bool) -> dict[str, list[Point]]:
    """Return each code's m, edits per hour and gigabytes on CPUs or on GPUs, sorted by m."""
    found: dict[str, list[Point]] = {code: [] for code in LOOKS}
    for result, point in measured_points():
        if on_gpu(result) != gpu or point["model"] != model or lengths_of(point):
            continue
        for code, line in found.items():
            measured: dict[str, Any] | None = point["training step"].get(code)
            if measured:
                m = point["n_edits"]
                line.append((m, 3600 * m / measured["seconds"], measured["peak_bytes"] / 1e9))
    return found


def draw(axes: Axes, lines: dict[str, list[Point]], column: int) -> None:
    """Draw one quantity of one model against m, by code."""
    ticks: set[int] = set()
    highest = 0.0
    for code, line in lines.items():
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


def figure(gpu: bool) -> None:
    """Draw the figure for CPUs or GPUs, if there are measurements."""
    devices = {result["device"].partition(",")[0] for result, _ in measured_points() if on_gpu(result) == gpu}
    models = {model: lines for model in TITLES if any((lines := curves(model, gpu)).values())}
    if not models:
        return
    with theme():
        drawn = Figure(figsize=(TEXT_WIDTH, 1.9), layout="constrained")
        grid = drawn.subplots(1, 2 * len(models))
        for number, (model, lines) in enumerate(models.items()):
            for column, axes in ((1, grid[number]), (2, grid[len(models) + number])):
                draw(axes, lines, column)
                axes.set_title(TITLES[model])
        grid[0].set_ylabel(f"edits per hour of one {'GPU' if gpu else 'core'}\n(training step)")
        grid[len(models)].set_ylabel("peak memory (GB)")
        handles, names = grid[0].get_legend_handles_labels()
        drawn.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
        drawn.suptitle("; ".join(sorted(devices)), fontsize=7)
        name = "throughput_gpu.png" if gpu else "throughput.png"
        drawn.savefig(ROOT / "docs" / "images" / name, dpi=300, metadata={"Software": None})


def main() -> None:
    """Draw both figures."""
    figure(gpu=False)
    figure(gpu=True)


if __name__ == "__main__":
    main()
