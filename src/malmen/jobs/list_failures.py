"""Lists of failed edits: prompts with decoded answers that are wrong after a group of edits (Tables 4 and 5)."""

from pathlib import Path
from typing import Any

from malmen.editing.evaluation import Evaluation
from malmen.errors import DivergedError, UserError
from malmen.jobs.answers import answers, asked
from malmen.jobs.common import Machine, ModelSpec, read_enough
from malmen.jobs.editor_spec import EditorSpec
from malmen.results.failures import AnsweredTuple, FailuresFile
from malmen.results.run import Run


def list_failures(spec: ModelSpec, editor: EditorSpec, tuples: Path, run: Run, machine: Machine) -> FailuresFile:
    """Edit the first group of a run into the model, and return the tuples with a wrong answer.

    The equivalent prompts are those of the run's evaluation.

    Args:
        spec: a model that answers questions.
        editor: the editor.
        tuples: file of the split whose first tuples are edited.
        run: the number of edits, and the seed of the equivalent prompts.
        machine: where to run.

    Raises:
        UserError: if the editor diverges, or the split has too few tuples.
    """
    model = spec.load(machine)
    group = read_enough(tuples, [run])[: run.n_edits]
    layers = spec.layers(model, editor.settings)
    evaluation = Evaluation(model, group, editor.settings.batch_size, run.seed)
    try:
        shifts = editor.make(layers, run).shifts(model, evaluation.all.edit)
    except DivergedError as error:
        what = f"{editor.settings.label} on {spec.label}"
        raise UserError(f"{what} has no failures to list: {error}; name another editor.") from None
    whole = slice(0, run.n_edits)
    after = evaluation.after(layers, shifts, whole)
    said = answers(evaluation, after.map(lambda scores: scores.predictions), whole)
    answered = map(AnsweredTuple.of, asked(evaluation, group, run.seed), said)
    failed = tuple(item for item in answered if item.failed)
    labels: dict[str, Any] = {"model_label": spec.label, "editor_label": editor.settings.label}
    return FailuresFile(editor=editor.name, **labels, n_edits=run.n_edits, seed=run.seed, records=failed)
