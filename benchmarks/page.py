"""Write the tables of docs/performance.md from the stored results; this script measures nothing.

python benchmarks/page.py
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from floor import LENGTH, floor_table, head, operations, row
from traffic import adam_table, speed_up_table, traffic_table

ROOT = Path(__file__).parents[1]
MEASURED = {
    "training step": ("training step", "ours"),
    "training step from the grid's cache": ("training step", "cached"),
    "aggregation": ("aggregation", "ours"),
    "whole edit": ("whole edit", "ours"),
}
"""The tasks that compare.py measures, with their keys in a result."""
AIMS = {"whole edit": 3.5}
"""The speed-up aimed at, where it is not 3."""
NOT_MEASURED = dict.fromkeys(("seconds", "ratio", "peak_bytes"), float("nan"))
GRIDS = {"full": "full size, m = 8 and 16, one pass over 64 tuples", "demo": "as in the demo, m = 8 and 64, 40 steps"}


def stored(pattern: str) -> list[dict[str, Any]]:
    """Return the results whose file names match, by name."""
    paths = sorted((ROOT / "benchmarks" / "results").glob(f"{pattern}.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def measured_points() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return each point that compare.py measured, after its result, in the order of models and m."""
    points = [(result, point) for result in stored("compare*") for point in result["measured"]]
    return sorted(points, key=lambda pair: (pair[1]["model"], pair[1]["n_edits"], pair[1]["lengths"]))


def on_gpu(result: dict[str, Any]) -> bool:
    """Return whether compare.py ran on a GPU."""
    return bool(result["device"] != result["processor"])


def measured() -> list[str]:
    """Return the table of compare.py."""
    names = ["what", "repeats", "s", "official s", "speed-up", "operations", "of peak", "official of peak"]
    lines = head("model, m", [*names, "GB", "official GB", "on"])
    for result, point in measured_points():
        for what, (kind, code) in MEASURED.items():
            if kind not in point:
                continue
            least, laid_out = operations(point, what)
            peak = result["gemm_per_second"]
            ours, official = point[kind][code], point[kind].get("official", NOT_MEASURED)
            ratio = official["seconds"] / ours["seconds"] if code == "cached" else official["ratio"]
            cells = [what, point["repetitions"], f"{ours['seconds']:.3g}", f"{official['seconds']:.3g}", f"{ratio:.2f}"]
            cells += [f"{laid_out / least:.2f}", f"{least / ours['seconds'] / peak:.0%}"]
            cells += [f"{laid_out / official['seconds'] / peak:.0%}"]
            cells += [f"{ours['peak_bytes'] / 1e9:.2f}", f"{official['peak_bytes'] / 1e9:.2f}"]
            cells.append(result["device"] if on_gpu(result) else "CPU")
            cells = ["" if cell in ("nan", "nan%") else cell for cell in cells]
            lines.append(row(f"{point['model']}, {point['n_edits']:,}{lengths_of(point)}", cells))
    return lines


def lengths_of(point: dict[str, Any]) -> str:
    """Describe the lengths of a point's sequences if they differ from those of floor.py."""
    shortest, longest = point["lengths"]
    return "" if shortest == longest == LENGTH else f", {shortest} to {longest} tokens"


def agreement() -> list[str]:
    """Return the table of agreement.py."""
    lines = []
    for result in stored("agreement"):
        found: dict[str, dict[str, float]] = result["differences"]
        lines += head(f"largest relative difference, m = {result['n_edits']}", found)
        lines += [row(what, [f"{of[what]:.1e}" for of in found.values()]) for what in next(iter(found.values()))]
    return lines


def paths() -> list[str]:
    """Return the table of fast paths."""
    lines = []
    for result in stored("paths"):
        lines += head(f"GPT-2, m = {result['n_edits']}, without one fast path", ["relative time of a step"])
        lines += [row(name, [f"{times:.2f}"]) for name, times in result["times"].items()]
    return lines


def growth() -> list[str]:
    """Return the table of a step's growth with m and the model."""
    lines = []
    for result in stored("paths"):
        base = result["growth"][f"m = {result['n_edits']}"]
        lines += head(f"GPT-2, m = {result['n_edits']}, except for", ["relative time of a step"])
        lines += [row(name, [f"{seconds / base:.2f}"]) for name, seconds in result["growth"].items()]
    return lines


def memit() -> list[str]:
    """Return the table of memit.py."""
    lines = []
    for result in stored("memit*"):
        lines += head(
            f"GPT-2, {result['steps']} steps, {result['device'].upper()}",
            ["s a request", "speed-up", "relative difference"],
        )
        for name, seconds in result["seconds a request"].items():
            cells = [
                f"{seconds:.2f}",
                f"{result['plain over'][name]:.2f}",
                f"{result['relative difference'][name]:.0e}",
            ]
            lines.append(row(name, cells))
    return lines


def memory() -> list[str]:
    """Return the table of peak memory."""
    lines = head("model, tokens a sequence", ["what", "m", "peak", "relative", "on"])
    for result in stored("memory_*"):
        for point in result["measured"]:
            cells = [point["what"], f"{point['n_edits']:,}", f"{point['peak_bytes'] / 1e9:.2f} GB"]
            cells += [f"{point['ratio to the first']:.2f}", "CPU" if result["device"] == "cpu" else "GPU"]
            lines.append(row(f"{result['model']}, {result['length']}", cells))
    return lines


def grid() -> list[str]:
    """Return the table of grid.py."""
    lines = head("GPT-2", ["without a cache, s", "with it, s", "writing it, s", "speed-up", "GB"])
    for result in stored("grid_*"):
        seconds = result["processor_seconds"]
        cells = [f"{seconds[name]:.1f}" for name in ("plain", "cached", "writing")]
        lines.append(row(GRIDS[result["size"]], [*cells, f"{seconds['ratio']:.2f}", f"{result['cache_gb']:.3f}"]))
    return lines


def demo() -> list[str]:
    """Return the table of demo.py."""
    lines = []
    for result in stored("demo"):
        lines += head("jobs of the demo", ["cache, s", "training, s", "evaluation, s", "total, s"])
        for name, of in result["runs"].items():
            seconds = [rule["seconds"] for rule in of.values()]
            lines.append(row(f"{name} a cache", [f"{n:.0f}" for n in (*seconds, sum(seconds))]))
    return lines


def targets() -> list[str]:
    """Return the table of target and reached speed-ups over the official code on a CPU."""
    columns: dict[str, dict[str, Any]] = {}  # one result may hold some tasks of a point, another the rest
    for result, point in measured_points():
        if not on_gpu(result) and point["n_edits"] in (64, 512):
            columns.setdefault(f"{point['model']}, {point['n_edits']}", {}).update(point)
    lines = head("speed-up", ["target", *columns])
    for what, (kind, code) in MEASURED.items():
        tasks = [point.get(kind, {}) for point in columns.values()]
        pairs = [
            (task.get("official", NOT_MEASURED)["seconds"], task.get(code, NOT_MEASURED)["seconds"]) for task in tasks
        ]
        cells = [f"{official / ours:.1f}" for official, ours in pairs]
        if set(cells) != {"nan"}:
            lines.append(row(what, [AIMS.get(what, 3), *("" if cell == "nan" else cell for cell in cells)]))
    return lines


def parallel() -> list[str]:
    """Return the table of parallel.py."""
    names = ["a step, s", "speed-up", "an edit, s", "speed-up", "GB of a rank", "speed-up of one product", "difference"]
    lines = head("model, m, ranks", [*names, "on"])
    for result in stored("parallel_*"):
        for of in result["measured"]:
            tasks = (of["training step"], of["whole edit"])
            cells = [text for task in tasks for text in (f"{task['seconds']:.3g}", f"{task['speed-up']:.2f}")]
            cells += [f"{of['peak_bytes'] / 1e9:.2f}", f"{of['speed-up of one product']:.2f}"]
            cells += [f"{of['difference']['untrained']:.0e}", "CPU" if not on_gpu(result) else result["device"]]
            lines.append(row(f"{result['model']}, {result['n_edits']:,}, {of['ranks']}", cells))
    return lines


def devices() -> list[str]:
    """Return the table of device_agreement.py, if it ran."""
    lines = []
    for result in stored("device_agreement"):
        lines += head("model, measure", result["devices"])
        for model, of in result["metrics"].items():
            for measure in next(iter(of.values())):
                lines.append(row(f"{model}, {measure}", [f"{values[measure]:.3f}" for values in of.values()]))
    return lines


def gptj() -> list[str]:
    """Return the table of gptj.py, if it ran to its end on a GPU."""
    lines = []
    for result in stored("gptj_cuda"):
        if whole := result.get("extrapolated"):
            lines += head(
                f"GPT-J, m = {result['n_edits']:,}, on {result['device']}",
                ["a step, s", "an edit, s", "training and one edit, h", "the paper's", "of the floor", "GB"],
            )
            cells = [f"{whole['step seconds']:.1f}", f"{whole['edit seconds']:.1f}", f"{whole['hours']:.2f}"]
            cells += [f"{whole['paper hours']:.2f}", f"{result['floor']['share of the floor']:.0%}"]
            lines.append(row("bfloat16", [*cells, f"{result['peak_bytes'] / 1e9:.0f}"]))
    return lines


TABLES: dict[str, Callable[[], Iterable[str]]] = {
    "targets": targets,
    "floor": floor_table,
    "measured": measured,
    "agreement": agreement,
    "paths": paths,
    "growth": growth,
    "memit": memit,
    "memory": memory,
    "grid": grid,
    "demo": demo,
    "traffic": traffic_table,
    "speed-ups": speed_up_table,
    "sharded Adam": adam_table,
    "ranks": parallel,
    "devices": devices,
    "GPT-J": gptj,
}
"""Each table by the name of its markers in the page."""


def put(text: str, marker: str, lines: Iterable[str]) -> str:
    """Return the page with these lines between the two comments of a marker."""
    before, _, rest = text.partition(f"<!-- {marker} -->")
    _, _, after = rest.partition(f"<!-- end of {marker} -->")
    return "\n".join([before + f"<!-- {marker} -->", *lines, f"<!-- end of {marker} -->" + after])


def main() -> None:
    """Write the tables, and print them."""
    path = ROOT / "docs" / "performance.md"
    text = path.read_text(encoding="utf-8")
    for marker, table in TABLES.items():
        text = put(text, marker, table())
        print("\n".join([*table(), ""]))
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
