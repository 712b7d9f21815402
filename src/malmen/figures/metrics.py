"""Metrics files, the main input of figures and tables, in one long table."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from malmen.errors import UserError
from malmen.results.metrics import MetricsFile
from malmen.results.sources import Origin
from malmen.runtime.files import write_text

METRICS = ("ES", "GS", "LS", "pre_ES", "pre_GS", "pre_LS", "agreement")
"""Edit, generalisation and locality success, the same before the edit, and agreement with the unedited model."""

COLUMNS = ("model", "dataset", "editor", "n_edits", "seed", "metric", "value")

OVER_SEEDS = "mean and sample standard deviation over seeds of each run's mean over its groups"
"""How the numbers of curves and tables are computed."""


def read_metrics(paths: Sequence[Path], n_edits: Collection[int] | None = None) -> list[MetricsFile]:
    """Read metrics files, sorted by model, dataset and editor, whatever the order of ``paths``.

    Args:
        paths: the files.
        n_edits: leave out runs with other numbers of edits, and files without any of these; all are kept if None.

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

    The last column, which is not for printing, is the ``file`` that it was read from.

    The rows are sorted by all columns but the value, metrics in the order given. A diverged run has rows with an empty
    (NaN) value, and so has an editor without the metric.
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
    """Return the runs that rows of :func:`long_form` come from."""
    columns = rows[["file", "n_edits", "seed"]].drop_duplicates().itertuples(index=False)
    return tuple(Origin(Path(file), int(n_edits), int(seed)) for file, n_edits, seed in columns)


def as_python(value: Any) -> Any:
    """Return a number of pandas as one of Python."""
    return value.item() if hasattr(value, "item") else value


def of_seeds(failed: int, total: int) -> str:
    """Say how many seeds diverged: ``2 of 3 seeds``."""
    return f"{failed} of {total} seed{'' if total == 1 else 's'}"


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write ``table`` so that equal tables give equal bytes everywhere and every number is read back exactly."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
