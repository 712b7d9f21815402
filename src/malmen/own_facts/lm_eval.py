"""Named tasks of lm-evaluation-harness, which is an optional extra, on a model before and after an edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from malmen.errors import UserError, first_line
from malmen.own_facts.model import ModelSource

HARNESS = "lm_eval"
"""The package's module."""


@dataclass(frozen=True)
class TaskScore:
    """The score of a model on a task.

    Attributes:
        task: the task's name.
        metric: what is measured, such as "acc".
        before: the score of the model before the edit; None if there is none.
        after: the score of the edited model.
    """

    task: str
    metric: str
    before: float | None
    after: float

    def __str__(self) -> str:
        was = "" if self.before is None else f", was {self.before:.4f}"
        return f"{self.task}, {self.metric}: {self.after:.4f}{was}"


def check_harness(tasks: Sequence[str], sources: Sequence[ModelSource]) -> None:
    """Check, before any work, that tasks can be run.

    Raises:
        UserError: if the harness is not installed, or a model is a fact checker.
    """
    if tasks and find_spec(HARNESS) is None:
        raise UserError(
            "--lm-eval needs lm-evaluation-harness, which is not installed; run pip install -e '.[lm-eval]'."
        )
    for source in sources:
        if tasks and source.task == "fact_checking":
            raise UserError(f"{source.name} checks facts and has no text to evaluate; leave out --lm-eval.")


def run_tasks(tasks: Sequence[str], after: ModelSource, before: ModelSource | None, device: str) -> list[TaskScore]:
    """Run tasks on a model, and on the one before the edit if there is one; the harness downloads their data.

    Args:
        tasks: names of tasks, as the harness calls them.
        after: the edited model.
        before: the model before the edit.
        device: "cpu", "cuda" or "auto".

    Raises:
        UserError: if the harness fails: it may not know a task, or not reach its data.
    """
    if not tasks:
        return []
    now, then = scores(tasks, after, device), scores(tasks, before, device) if before else {}
    return [TaskScore(task, metric, then.get((task, metric)), value) for (task, metric), value in now.items()]


def scores(tasks: Sequence[str], source: ModelSource, device: str) -> dict[tuple[str, str], float]:
    """Return a model's scores, by task and metric."""
    try:
        results = import_module(HARNESS).simple_evaluate(
            model="hf",
            model_args={"pretrained": str(source.directory), "dtype": source.dtype},
            tasks=list(tasks),
            device=None if device == "auto" else device,
            log_samples=False,
        )
    except Exception as error:  # Tasks, data and models make the harness raise errors of any kind.
        raise UserError(
            f"lm-evaluation-harness fails on {source.name} ({first_line(error)}); check the names of the tasks "
            f"({', '.join(tasks)}) and that their data can be downloaded."
        ) from None
    return dict(numbers_in(results["results"]))


def numbers_in(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[tuple[str, str], float]]:
    """Return task, metric and value of what the harness gives out: "acc,none" is acc without a filter."""
    return [
        ((task, key.removesuffix(",none")), float(value))
        for task, found in results.items()
        for key, value in found.items()
        if "," in key and "_stderr" not in key and isinstance(value, int | float)
    ]
