"""Rounds files, the input of figures and tables on editing in rounds, in one long table."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from malmen.errors import UserError
from malmen.figures.metrics import check_one_model, of_seeds
from malmen.results.rounds import MEASURES, RoundsFile, RoundsRun
from malmen.results.sources import Origin

COLUMNS = ("model", "dataset", "editor", "n_rounds", "n_edits", "seed", "after", "metric", "value")

OVER_SEEDS = "mean and sample standard deviation over seeds, each measured on all edits of its rounds so far"
"""The computation of the numbers in figures and tables on rounds."""


def read_rounds(paths: Sequence[Path], rounds: Collection[str] | None = None) -> list[RoundsFile]:
    """Read rounds files, in the order of ``paths``.

    Args:
        paths: the files.
        rounds: keep only runs with rounds of these names, and files with such runs; None keeps all.

    Raises:
        UserError: naming the file that is missing, malformed, or repeats a run of another file.
    """
    files: list[RoundsFile] = []
    origin: dict[tuple[str, str, str, str, int], Path] = {}
    for path in paths:
        item = RoundsFile.read(path)
        chosen = (run for run in item.runs if rounds is None or run.rounds in rounds)
        runs = tuple(run.model_copy(update={"file": path}) for run in chosen)
        for run in runs:
            key = (item.model, item.dataset, item.editor, run.rounds, run.seed)
            if key in origin:
                raise UserError(
                    f"{path} repeats the run of {item.editor} on {item.model} with seed {run.seed} and rounds "
                    f"{run.rounds} found in {origin[key]}; give each file once."
                )
            origin[key] = path
        if runs:
            files.append(item.model_copy(update={"runs": runs}))
    return files


def long_form(files: Sequence[RoundsFile], metrics: Sequence[str], course: bool = False) -> pd.DataFrame:
    """Return one row per measurement, with the columns :data:`COLUMNS`; the last column, ``file``, is the source.

    The value is NaN where a run had diverged, and for an editor without the measure. The rows keep the order of
    editors in ``files``, then go by rounds and seeds.

    Args:
        files: what :func:`read_rounds` returned.
        metrics: names of measures, of the unedited model with ``pre_`` before it.
        course: whether all measurements are returned, or those after the last round alone.
    """
    rows = []
    for item in files:
        for run in item.runs:
            points = _points(files, run) if course else [run.n_rounds]
            head = (item.model, item.dataset, item.editor, run.n_rounds, run.n_edits, run.seed)
            rows += [
                (*head, after, name, run.value(name, after), str(run.file)) for after in points for name in metrics
            ]
    order = {editor: place for place, editor in enumerate(labels_of(files))}
    rows.sort(key=lambda row: (row[0], row[1], order[row[2]], *row[3:7]))
    numbers = dict.fromkeys(("n_rounds", "n_edits", "seed", "after"), int)
    return pd.DataFrame(rows, columns=[*COLUMNS, "file"]).astype({**numbers, "value": float})


def _points(files: Sequence[RoundsFile], run: RoundsRun) -> list[int]:
    """Return after which rounds a run was measured; of a diverged one also where others were measured later."""
    measured = [one.after for one in run.measured]
    later = [] if run.status == "ok" else places(files, run.rounds)
    return [*measured, *(after for after in later if after > max(measured, default=0))]


def places(files: Sequence[RoundsFile], rounds: str) -> list[int]:
    """Return after which of the rounds of this name any run was measured, and the last one."""
    runs = [run for item in files for run in item.runs if run.rounds == rounds]
    return sorted({one.after for run in runs for one in run.measured} | {run.n_rounds for run in runs})


def labels_of(files: Sequence[RoundsFile]) -> dict[str, str]:
    """Return the printed names of the editors, by key, in the order of the files."""
    return {item.editor: item.editor_label for item in files}


def single_model(files: Sequence[RoundsFile], what: Path) -> RoundsFile:
    """Check that the runs are of exactly one model on one dataset, and return a file of it.

    Raises:
        UserError: if they are not.
    """
    check_one_model(files, str(what), "runs in rounds", "rounds")
    return files[0]


def origins_of(runs: Sequence[RoundsRun]) -> tuple[Origin, ...]:
    """Return where runs were read."""
    return tuple(Origin(run.file, run.n_edits, run.seed) for run in runs)


def divergence(runs: Sequence[RoundsRun]) -> str:
    """Return how many of the runs diverged and why; empty if none did."""
    failed = [run for run in runs if run.status == "diverged"]
    reasons = sorted({run.reason.rstrip(".") for run in failed if run.reason})
    return f"{of_seeds(len(failed), len(runs))} diverged: {'; '.join(reasons)}." if failed else ""


def printed_rounds(name: str) -> str:
    """Return how rounds are printed: ``8x64`` as "8 rounds of 64", ``1x512`` as "at once: 512"."""
    n_rounds, n_edits = name.split("x")
    return f"at once: {int(n_edits):,}" if n_rounds == "1" else f"{int(n_rounds):,} rounds of {int(n_edits):,}"


def scale(metric: str) -> float:
    """Return the factor with which a measure is printed: shares in percent."""
    return 100.0 if MEASURES[metric.removeprefix("pre_")].unit == "share" else 1.0
