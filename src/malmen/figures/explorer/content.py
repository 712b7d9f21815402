"""What the explorer shows, from files of metrics and of answers, in the form that its script reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from malmen.figures.failure_table import KINDS, spans
from malmen.figures.metrics import OVER_SEEDS, as_python, long_form, origins, read_metrics
from malmen.results.answers import Answer, AnsweredRun, AnswersFile, AskedTuple, is_right
from malmen.results.metrics import MetricsFile, RunMetrics
from malmen.results.sources import Origin, Shown, without_nan

SUCCESSES = ("ES", "GS", "LS")
BEFORE = tuple(f"pre_{metric}" for metric in SUCCESSES)
OVER_ALL = "mean over editors and seeds of each run's mean over its groups"
"""The computation of the values before the edit."""
COUNTED = "number of tuples with answers, and of right answers (as a whole) to their prompts before and after the edit"

Json = dict[str, Any]
RunKey = tuple[str, str, int, int]
"""Model, editor, m and seed."""


@dataclass
class Content:
    """What the explorer shows; an ``anchor`` in it is a place in ``shown``.

    Attributes:
        models: key, label and data of each model.
        editors: the label of each editor, by key.
        points: each editor's mean and standard deviation at each m, by metric.
        before: the same before the edit, without deviations.
        runs: what each run measured, and its answers after the edit.
        asked: prompts with targets and answers before the edit, to which runs refer by place.
        shown: the sources of all numbers.
    """

    models: list[Json] = field(default_factory=list)
    editors: dict[str, str] = field(default_factory=dict)
    points: list[Json] = field(default_factory=list)
    before: list[Json] = field(default_factory=list)
    runs: list[Json] = field(default_factory=list)
    asked: list[list[Json]] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)

    def add(self, shown: Shown) -> int:
        """Add the source of numbers, and return its anchor."""
        self.shown.append(shown)
        return len(self.shown) - 1

    def place_of(self, asked: list[Json]) -> int:
        """Return the place of what was asked; the same of several editors is kept once."""
        if asked not in self.asked:
            self.asked.append(asked)
        return self.asked.index(asked)


def collect(metrics: Sequence[Path], answers: Sequence[Path], models: Mapping[str, str]) -> Content:
    """Return what the explorer shows.

    Args:
        metrics: all metrics files.
        answers: the answers files; runs that none of them holds are shown without answers.
        models: the printed name of the data set of each model, in the order in which they are shown.

    Raises:
        UserError: if a file is missing or malformed, or two metrics files repeat a measurement.
    """
    files, content = read_metrics(metrics), Content()
    labels = {item.model: item.model_label for item in files}
    content.models = [
        {"key": model, "label": labels[model], "data": data} for model, data in models.items() if model in labels
    ]
    content.editors = {item.editor: item.editor_label for item in files}
    values = long_form(files, (*SUCCESSES, *BEFORE))
    for (model, n_edits), rows in values.groupby(["model", "n_edits"]):
        of = {"model": str(model), "model_label": labels[str(model)], "n_edits": as_python(n_edits)}
        for editor, own in rows.groupby("editor"):
            add_point(content, {**of, "editor": str(editor), "editor_label": content.editors[str(editor)]}, own)
        add_before(content, of, rows)
    kept = dict(answers_of(answers))
    for item in files:
        for run in item.runs:
            add_run(content, item, run, kept.get((item.model, item.editor, run.n_edits, run.seed)))
    return content


def add_point(content: Content, of: Mapping[str, str | int], rows: pd.DataFrame) -> None:
    """Add an editor's values at one m, over seeds."""
    spread = rows.groupby("metric", sort=False)["value"].agg(["mean", "std"]).to_dict("index")
    values = {str(metric): numbers for metric, numbers in spread.items()}
    anchor = content.add(Shown.from_origins(of, values, OVER_SEEDS, origins(rows)))
    point = {"model": of["model"], "editor": of["editor"], "m": of["n_edits"], "anchor": anchor}
    content.points.append({**point, **without_nan({metric: values[metric] for metric in SUCCESSES})})


def add_before(content: Content, of: Mapping[str, str | int], rows: pd.DataFrame) -> None:
    """Add the values before the edit at one m; only the groups' sizes change them with m."""
    means = rows[rows["metric"].isin(BEFORE)].groupby("metric", sort=False)["value"].mean()
    values = {str(metric): {"mean": float(mean)} for metric, mean in means.items()}
    anchor = content.add(Shown.from_origins({**of, "editor": "none"}, values, OVER_ALL, origins(rows)))
    point = {"model": of["model"], "m": of["n_edits"], "anchor": anchor}
    content.before.append({**point, **without_nan({metric: values[f"pre_{metric}"] for metric in SUCCESSES})})


def answers_of(paths: Sequence[Path]) -> Iterator[tuple[RunKey, tuple[Path, tuple[AskedTuple, ...], AnsweredRun]]]:
    """Yield the answers of each run, with their file and with what was asked."""
    for path in paths:
        file = AnswersFile.read(path)
        asked = {one.seed: one.tuples for one in file.asked}
        for run in file.runs:
            yield (file.model, file.editor, run.n_edits, run.seed), (path, asked[run.seed], run)


def add_run(
    content: Content,
    item: MetricsFile,
    run: RunMetrics,
    answered: tuple[Path, tuple[AskedTuple, ...], AnsweredRun] | None,
) -> None:
    """Add what a run measured and answered."""
    entry: Json = {"model": item.model, "editor": item.editor, "m": run.n_edits, "seed": run.seed}
    entry |= {"groups": len(run.groups), "diverged": run.reason}
    entry |= without_nan({metric: run.mean(metric) for metric in SUCCESSES})
    if answered and answered[2].answers:
        path, asked, said = answered
        pairs = list(zip(asked, said.answers, strict=False))
        of: dict[str, str | int] = {"model": item.model, "model_label": item.model_label, "editor": item.editor}
        of |= {"editor_label": item.editor_label, "n_edits": run.n_edits, "seed": run.seed}
        counts = {"tuples": len(pairs)}
        for kind in KINDS:
            counts[f"{kind}_before"] = sum(is_right(getattr(one, kind).before) for one, _ in pairs)
            counts[kind] = sum(is_right(getattr(after, kind)) for _, after in pairs)
        origin = Origin(path, run.n_edits, run.seed)
        entry["anchor"] = content.add(Shown.from_origins(of, counts, COUNTED, [origin]))
        entry["counts"] = counts
        entry["asked"] = content.place_of([question(one) for one in asked])
        entry["answers"] = [list(map(parts, after)) for _, after in pairs]
    content.runs.append(entry)


def question(asked: AskedTuple) -> Json:
    """Return what a tuple asks: for each of its prompts the text, the target and the answer before the edit."""
    return {"id": asked.id, "prompts": [[one.prompt, one.target, parts(one.before)] for one in asked.prompts]}


def parts(answer: Answer) -> list[str | list[str]]:
    """Return an answer as its right stretches, each a text, and its wrong ones, each a text in a list."""
    found: list[str | list[str]] = []
    for span in spans(answer):
        last = found[-1] if found else None
        if span.marked and isinstance(last, list):
            last[0] += span.text
        elif not span.marked and isinstance(last, str):
            found[-1] = last + span.text
        else:
            found.append([span.text] if span.marked else span.text)
    return found
