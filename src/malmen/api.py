"""The Python API: from a model and a file of facts to an edited model and its scores.

This module loads no torch before a function needs it. The command line takes its options and their descriptions from
here, so each is described once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from malmen.config.base import Answers, BatchSize, Dtype, TaskName
from malmen.data import training_tuples
from malmen.data.tuples import EditTuple
from malmen.own_facts import facts as facts_files
from malmen.own_facts.facts import Fact
from malmen.own_facts.methods import FineTuning, Memit

if TYPE_CHECKING:
    from malmen.config.hypernetwork import HyperNetworkEditorSettings
    from malmen.own_facts.edited import EditedModel
    from malmen.own_facts.model import LoadedModel
    from malmen.own_facts.report import EditScores
    from malmen.own_facts.trained import TrainedEditor


def load_model(
    model: str | Path,
    revision: str | None = None,
    task: TaskName | None = None,
    device: str = "auto",
    dtype: Dtype | None = None,
) -> "LoadedModel":
    """Load a model to edit. Afterwards torch uses deterministic algorithms only, so that results can be repeated.

    Args:
        model: Directory of the model, or its id on the Hugging Face hub.
        revision: Commit, branch or tag of the hub's repository. Default: its main branch. The commit is recorded.
        task: How the model answers. Default: as its architecture does (BERT checks facts, an encoder-decoder answers
            in its decoder, other models continue the prompt).
        device: cpu, cuda, or auto: a GPU if there is one.
        dtype: Precision in which the weights are loaded, edited and saved. Default: as they are stored, but float32 for
            float16.

    Raises:
        malmen.errors.UserError: if there is no such model or device, or the files cannot be loaded.
    """
    from malmen.own_facts.model import find_model  # noqa: PLC0415 (imports torch)

    return find_model(model, revision, task, dtype).load(device)


def read_facts(facts: str | Path, answers: Answers = "new", skip_bad: bool = False) -> list[Fact]:
    """Read facts to edit into a model.

    Args:
        facts: JSON lines, a JSON list, or a table (CSV, TSV) with prompt, answer and, optionally, rephrasings, subject,
            unrelated_prompt and unrelated_answer; or a file of ROME, MEMIT, EasyEdit, KnowEdit, MEND, MALMEN's authors
            or WikiBigEdit. - reads standard input.
        answers: Which answer is taken where a record has two: new, the one that an edit demands (target_new, alt), or
            true, the right one (ground_truth, answers).
        skip_bad: Leave out records that do not fit, or contradict an earlier one, and count them.

    Raises:
        malmen.errors.UserError: if facts are malformed or contradict each other; names the file and all of their lines.
    """
    return facts_files.read_facts(Path(facts), answers, skip_bad)


def read_unrelated(unrelated: str | Path, skip_bad: bool = False) -> list[Fact]:
    """Read questions that an edit should not change.

    Args:
        unrelated: A file in a format of :func:`read_facts`. Its questions are the unrelated prompts of its records, if
            it has any; otherwise their own prompts, with the true answers.
        skip_bad: Leave out records that do not fit.

    Raises:
        malmen.errors.UserError: if questions are malformed; names the file and all of their lines.
    """
    return facts_files.read_unrelated(Path(unrelated), skip_bad)


def read_tuples(
    tuples: str | Path,
    unrelated: str | Path | None = None,
    answers: Answers = "new",
    skip_bad: bool = False,
    seed: int = 0,
) -> list[EditTuple]:
    """Read edit tuples, on which editors are trained and evaluated.

    Args:
        tuples: Edit tuples, such as the workflow's train.jsonl: id, edit (prompt and answer), equivalent (a list of
            prompts), unrelated (prompt and answer) and, optionally, subject. Or facts in a format of
            :func:`read_facts`: one without rephrasings has its prompt as the equivalent one.
        unrelated: A file of unrelated questions, as :func:`read_unrelated` reads it, for facts that have none.
        answers: Which answer is taken where a record has two, as in :func:`read_facts`.
        skip_bad: Leave out records that do not fit.
        seed: Seed of the choice of an unrelated question for each fact.

    Raises:
        malmen.errors.UserError: if records are malformed or have no unrelated question; names the file and all of their
            lines.
    """
    pool = [question.pair for question in read_unrelated(unrelated, skip_bad)] if unrelated else []
    return training_tuples.read_training_tuples(Path(tuples), pool, answers, skip_bad, seed).tuples


def load_editor(editor: str | Path) -> "TrainedEditor":
    """Load a trained editor.

    Args:
        editor: An editor.safetensors, or a folder with exactly one in or below it.

    Raises:
        malmen.errors.UserError: if there is no editor, a folder has several, or its training diverged.
    """
    from malmen.own_facts import trained  # noqa: PLC0415 (imports torch)

    return trained.load_editor(editor)


def edit(
    model: "LoadedModel",
    facts: Sequence[Fact],
    editor: "TrainedEditor | FineTuning | Memit",
    unrelated: Sequence[Fact] = (),
    batch_size: BatchSize = "auto",
) -> "EditedModel":
    """Edit facts into a model, all at once, and measure it before and after.

    Args:
        model: The model, from :func:`load_model`. It stays as it was; the result holds the edited weights.
        facts: The facts, from :func:`read_facts` or made in Python.
        editor: A trained editor, from :func:`load_editor` or :func:`train_editor`; or :class:`FineTuning` or
            :class:`Memit`.
        unrelated: Questions that the edit should not change, in any format of the facts. Default: the unrelated prompts
            of the facts' own records; if they have none, questions of general knowledge, without LS, because the model
            may not know their answers.
        batch_size: Number of sequences that the model reads at once. Default: automatic.

    Raises:
        malmen.errors.UserError: if the editor is not for this model, the model cannot read a fact, two facts
            contradict each other, or the edit fails.
    """
    from malmen.own_facts.edit import edit_facts  # noqa: PLC0415 (imports torch)

    return edit_facts(model, facts, editor, unrelated, batch_size)


def train_editor(
    model: "LoadedModel",
    tuples: Sequence[EditTuple],
    n_edits: int,
    settings: "HyperNetworkEditorSettings | None" = None,
    layers: Sequence[str] = (),
    seed: int = 0,
) -> "TrainedEditor":
    """Train an editor for groups of ``n_edits`` edits. MALMEN on the last 6 blocks unless ``settings`` say otherwise.

    Args:
        model: The model, from :func:`load_model`.
        tuples: The training tuples, from :func:`read_tuples`; at least ``n_edits``.
        n_edits: Number of edits m that the editor makes at once.
        settings: The editor, as under ``editors`` in a configuration.
        layers: Regular expressions for the full names of the layers to edit. Default: the last linear layer of
            every Transformer block.
        seed: Seed of the initial values and of the order of the tuples.

    Raises:
        malmen.errors.UserError: if there are too few tuples or layers, or the training diverges.
    """
    from malmen.own_facts import training  # noqa: PLC0415 (imports torch)

    return training.train_editor(model, tuples, n_edits, settings, layers, seed)


def evaluate(
    model: "LoadedModel",
    editor: "TrainedEditor | FineTuning | Memit",
    tuples: Sequence[EditTuple],
    n_edits: int,
    max_groups: int | None = None,
    seed: int = 0,
    batch_size: BatchSize = "auto",
) -> "EditScores":
    """Edit groups of ``n_edits`` tuples, one group after the other, and return the mean scores of the groups.

    Args:
        model: The model, from :func:`load_model`. It stays as it was.
        editor: The editor, as in :func:`edit`.
        tuples: The tuples to report on, from :func:`read_tuples`. A last group of fewer than ``n_edits`` is left out.
        n_edits: Number of edits m at once.
        max_groups: Number of groups to measure at most.
        seed: Seed of the choice of one equivalent prompt for each tuple.
        batch_size: Number of sequences that the model reads at once. Default: automatic.

    Raises:
        malmen.errors.UserError: if there are fewer than ``n_edits`` tuples, or the editor is not for this model.
    """
    from malmen.own_facts import measure  # noqa: PLC0415 (imports torch)

    return measure.evaluate(model, editor, tuples, n_edits, max_groups, seed, batch_size)
