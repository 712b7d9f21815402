"""Metrics files, the main input of figures and tables, in one long table."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from malmen.errors import UserError
from malmen.results.metrics import MetricsFile, RunMetrics
from malmen.results.rounds import RoundsFile
from malmen.results.sources import Origin
from malmen.runtime.files import write_text

METRICS = ("ES", "GS", "LS", "pre_ES", "pre_GS", "pre_LS", "agreement")
"""Edit, generalisation and locality success, the same before the edit, and agreement with the unedited model."""

COLUMNS = ("model", "dataset", "editor", "n_edits", "seed", "metric", "value")

OVER_SEEDS = "mean and sample standard deviation over seeds of each run's mean over its groups"
"""The computation of the numbers in curves and tables."""


def read_metrics(paths: Sequence[Path], n_edits: Collection[int] | None = None) -> list[MetricsFile]:
    """Read metrics files, sorted by model, dataset and editor, whatever the order of ``paths``.

    Args:
        paths: the files.
        n_edits: keep only runs with these numbers of edits, and files with such runs; None keeps all.

    Raises:
        UserError: naming the file that is missing, malformed, or repeats a measurement of another file.
    """
    files: list[MetricsFile] = []
    origin: dict[tuple[str, str, str, int, int], Path] = {}
    for path in paths:
        item = MetricsFile.read(path)
        chosen = (run for run in item.runs if n_edits is None or run.n_edits in n_edits)
        runs = tuple(run.model_copy(update={"file": path}) for run in chosen)
        if not runs:
            continue
        item = item.model_copy(update={"runs": runs})
        for run in item.runs:
            key = (item.model, item.dataset, item.editor, run.seed, run.n_edits)
            if key in origin:
                raise UserError(
                    f"{path} repeats the measurement of {item.editor} on {item.model} with seed {run.seed} and "
                    f"m = {run.n_edits} found in {origin[key]}; give each file once."
                )
            origin[key] = path
        files.append(item)
    firsts = {id(item): min((run.seed, run.n_edits) for run in item.runs) for item in files}
    return sorted(files, key=lambda item: (item.model, item.dataset, item.editor, firsts[id(item)]))


def long_form(files: Sequence[MetricsFile], metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Return one row per measurement, with the columns :data:`COLUMNS`; ``value`` is a seed's mean over its groups.

    The last column, ``file``, is the source. The rows are sorted by all columns except the value, metrics in the order
    given. The value is NaN for a diverged run, and for an editor without the metric.
    """
    rows = [
        (item.model, item.dataset, item.editor, run.n_edits, run.seed, metric, run.mean(metric), str(run.file))
        for item in files
        for run in item.runs
        for metric in metrics
    ]
    # The sort is stable, so the metrics of one measurement keep their order.
    rows.sort(key=lambda row: row[:5])
    return pd.DataFrame(rows, columns=[*COLUMNS, "file"]).astype({"n_edits": int, "seed": int, "value": float})


def load_metrics(paths: Sequence[Path]) -> pd.DataFrame:
    """Read metrics files into the table that :func:`long_form` describes, without the files.

    Raises:
        UserError: naming the file that is missing, malformed, or repeats a measurement of another file.
    """
    return long_form(read_metrics(paths))[list(COLUMNS)]


def origins(rows: pd.DataFrame) -> tuple[Origin, ...]:
    """Return the runs of rows of :func:`long_form`."""
    columns = rows[["file", "n_edits", "seed"]].drop_duplicates().itertuples(index=False)
    return tuple(Origin(Path(file), int(n_edits), int(seed)) for file, n_edits, seed in columns)


def as_python(value: Any) -> Any:
    """Convert a number of pandas to a Python number."""
    return value.item() if hasattr(value, "item") else value


def of_seeds(failed: int, total: int) -> str:
    """Return a text such as ``2 of 3 seeds``."""
    return f"{failed} of {total} seed{'' if total == 1 else 's'}"


def reasons_of(runs: Iterable[RunMetrics]) -> str:
    """Return why runs diverged, each reason once."""
    reasons = sorted({run.reason.rstrip(".") for run in runs if run.reason})
    return f"{'; '.join(reasons)}."


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write ``table`` as a CSV: equal tables give equal bytes on every machine, and numbers keep their exact values."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def check_one_model(files: Sequence[MetricsFile] | Sequence[RoundsFile], what: str, needed: str, kind: str) -> None:
    """Check that files of results are of exactly one model on one dataset.

    Args:
        files: the files.
        what: what is made of them, for the message.
        needed: what it needs of one model, for the message.
        kind: what the files are called.

    Raises:
        UserError: if they are not.
    """
    found = sorted({f"{item.model} on {item.dataset}" for item in files})
    if len(found) != 1:
        raise UserError(
            f"{what} needs {needed} of exactly one model on one dataset, and there are "
            f"{len(found)} ({', '.join(found) or 'none'}); pass the {kind} files of one."
        )
