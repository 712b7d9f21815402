"""The Python API: from a model and a file of facts to an edited model and its scores.

This module loads no torch before a function needs it. The command line takes its options and their descriptions from
here, so each is described once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from malmen.config.base import Answers, BatchSize, Dtype, TaskName
from malmen.data import training_tuples
from malmen.data.tuples import EditTuple
from malmen.errors import UserError
from malmen.own_facts import facts as facts_files
from malmen.own_facts.edited import check_folder
from malmen.own_facts.facts import Fact
from malmen.own_facts.methods import FineTuning, Memit, check_numbers

if TYPE_CHECKING:
    from malmen.config.hypernetwork import HyperNetworkEditorSettings
    from malmen.editing.editor import Editor
    from malmen.own_facts.check import CheckReport
    from malmen.own_facts.edited import EditedModel
    from malmen.own_facts.model import LoadedModel
    from malmen.own_facts.report import EditScores
    from malmen.own_facts.trained import TrainedEditor
    from malmen.own_facts.usual_settings import Kind


def load_model(
    model: str | Path,
    revision: str | None = None,
    task: TaskName | None = None,
    device: str = "auto",
    dtype: Dtype | None = None,
    template: str | None = None,
    raw: bool = False,
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
        template: How the model is asked, such as "Q: {prompt} A: {answer}". Default: by the tokenizer's chat template
            if it has one, else plainly.
        raw: Ask plainly, with prompt, space and answer, in spite of a chat template.

    Raises:
        malmen.errors.UserError: if there is no such model or device, the files cannot be loaded, or the template is
            malformed.
    """
    from malmen.own_facts.model import find_model  # noqa: PLC0415 (imports torch)

    return find_model(model, revision, task, dtype).load(device, template, raw)


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
    rounds: int = 1,
    measure: int | None = None,
) -> "EditedModel":
    """Edit facts into a model, all at once or in rounds, and measure it before and after.

    Args:
        model: The model, from :func:`load_model`. It stays as it was; the result holds the edited weights.
        facts: The facts, from :func:`read_facts` or made in Python.
        editor: A trained editor, from :func:`load_editor` or :func:`train_editor`; or :class:`FineTuning` or
            :class:`Memit`.
        unrelated: Questions that the edit should not change, in any format of the facts. Default: the unrelated prompts
            of the facts' own records; if they have none, questions of general knowledge, without LS, because the model
            may not know their answers.
        batch_size: Number of sequences that the model reads at once. Default: automatic.
        rounds: In how many rounds the facts are edited, in their order, each into the model with the rounds before it.
        measure: Number of facts, of rephrasings and of unrelated questions that the model is asked, at most. Default:
            all of them.

    Raises:
        malmen.errors.UserError: if the editor is not for this model, the model cannot read a fact, two facts
            contradict each other, or the edit fails.
    """
    from malmen.own_facts.edit import edit_facts  # noqa: PLC0415 (imports torch)
    from malmen.own_facts.editors import form_for  # noqa: PLC0415

    check_numbers(batch_size=batch_size, measure=measure)
    with model.asked_in(form_for(editor, model.language_model)):
        return edit_facts(model, facts, editor, unrelated, batch_size, rounds, measure)


def undo_edit(edited: str | Path, out: str | Path, force: bool = False) -> None:
    """Write the model as it was before an edit, byte by byte. It needs no copy of it.

    Args:
        edited: Directory of the edited model, with its edit.delta.
        out: New or empty directory for the restored model.
        force: Replace an edited model that is already in this directory.

    Raises:
        malmen.errors.UserError: if there is no delta, the weights were changed since the edit, or the directory holds
            anything that may not be replaced.
    """
    from malmen.own_facts import undo  # noqa: PLC0415 (imports torch)

    undo.undo_edit(Path(edited), Path(out), force)


def apply_edit(
    delta: str | Path, model: str | Path, out: str | Path, revision: str | None = None, force: bool = False
) -> None:
    """Write the edited model that a saved delta makes of the unedited one.

    Args:
        delta: The edit.delta that an edit wrote, or its directory.
        model: Directory of the unedited model, or its id on the Hugging Face hub.
        out: New or empty directory for the edited model.
        revision: Commit, branch or tag of the hub's repository. Default: its main branch.
        force: Replace an edited model that is already in this directory.

    Raises:
        malmen.errors.UserError: if the delta belongs to other weights, or the directory holds anything that may not be
            replaced.
    """
    from malmen.own_facts import undo  # noqa: PLC0415 (imports torch)

    undo.apply_edit(Path(delta), model, revision, Path(out), force)


def ask(model: "LoadedModel", questions: Sequence[str], max_tokens: int = 64) -> list[str]:
    """Ask a model questions and return its answers, each token the most probable one, without special tokens.

    A model that this package edited is asked as in its edit, unless :func:`load_model` was told how to ask it.

    Args:
        model: The model, from :func:`load_model`; inside ``edited.applied()`` it is the edited one.
        questions: The questions; for a fact checker claims, to which it answers SUPPORTS or REFUTES.
        max_tokens: Number of tokens after which an answer is cut off.

    Raises:
        malmen.errors.UserError: if a question is empty or too long.
    """
    from malmen.own_facts.asking import ask_questions  # noqa: PLC0415 (imports torch)

    if isinstance(questions, str):
        raise UserError(f"The questions are one text, {questions!r}, but must be a list; write [{questions!r}].")
    check_numbers(max_tokens=max_tokens)
    with model.asked_as_edited(model.source.form_of_edit):
        return ask_questions(model.language_model, questions, max_tokens)


def check(
    model: "LoadedModel",
    facts: Sequence[Fact],
    unrelated: Sequence[Fact] = (),
    before: "LoadedModel | None" = None,
    text: str | Path | None = None,
    batch_size: BatchSize = "auto",
    measure: int | None = None,
) -> "CheckReport":
    """Measure whether a model is still good, whoever edited it.

    A model that this package edited is asked as in its edit, unless :func:`load_model` was told how to ask it.

    Args:
        model: The edited model, from :func:`load_model`.
        facts: The facts that were edited into it.
        unrelated: Questions that the edit should not have changed, in any format of the facts. Default: the unrelated
            prompts of the facts' own records; if they have none, questions of general knowledge, without LS, because
            the model may not know their answers.
        before: The model before the edit. Without it nothing tells what the edit changed.
        text: File of ordinary text on which perplexity is measured. Default: English text in this package.
        batch_size: Number of sequences that the model reads at once. Default: automatic.
        measure: Number of facts, of rephrasings and of unrelated questions that the model is asked, at most. Default:
            all of them.

    Raises:
        malmen.errors.UserError: if a file is malformed, the model cannot read a prompt, or the two models do not read
            prompts alike.
    """
    from malmen.own_facts.check import Questions, compared, look_at  # noqa: PLC0415 (imports torch)
    from malmen.own_facts.ordinary_text import OrdinaryText  # noqa: PLC0415

    check_numbers(batch_size=batch_size, measure=measure)
    ordinary = OrdinaryText.read(Path(text) if text else None)
    questions = Questions(facts, unrelated, ordinary, batch_size, measure, model.source.form_of_edit)
    return compared(model, questions, look_at(before, questions, "before the edit") if before else None)


def train_editor(
    model: "LoadedModel",
    tuples: Sequence[EditTuple],
    n_edits: int,
    settings: "HyperNetworkEditorSettings | None" = None,
    layers: Sequence[str] = (),
    seed: int = 0,
    out: str | Path | None = None,
    tune: bool = False,
) -> "TrainedEditor":
    """Train an editor for groups of ``n_edits`` edits. MALMEN on the last 6 blocks unless ``settings`` say otherwise.

    Args:
        model: The model, from :func:`load_model`.
        tuples: Edit tuples to train on, from :func:`read_tuples`; at least ``n_edits``.
        n_edits: Number of edits m that the editor makes at once.
        settings: The editor, as under ``editors`` in a configuration, such as from :func:`usual_settings`. Default:
            MALMEN, with settings that suit the model's size.
        layers: Regular expression for the full names of the layers to edit, or several. Default: the last linear layer
            of the last blocks' feed-forward networks.
        seed: Seed of the initial values and of the order of the tuples.
        out: Folder of the editor and its report. A training that was interrupted there, or is to be longer now, goes
            on. A fifth of the tuples at most is held out, and the editor is measured on it. Default: the editor stays
            in memory, and no tuple is held out.
        tune: Choose eta by three short trainings, measured on the held-out tuples, before the training.

    Raises:
        malmen.errors.UserError: if there are too few tuples or layers, the folder holds something else, or the training
            diverges.
    """
    from malmen.own_facts import trained, training  # noqa: PLC0415 (imports torch)

    check_numbers(n_edits=n_edits)
    if out is None and tune:
        raise UserError("tune measures on held-out tuples, which there are only with out; name a folder.")
    if out is None:
        return training.train_editor(model, tuples, n_edits, settings, layers, seed)
    check_folder(Path(out), "the editor")
    training.train_into(Path(out), model, tuples, n_edits, settings, layers, seed, tune)
    return trained.load_editor(out)


def usual_settings(model: "LoadedModel", kind: "Kind" = "malmen", **changed: Any) -> "HyperNetworkEditorSettings":
    """Return settings of an editor that suit a model's size, to be given to :func:`train_editor`.

    Args:
        model: The model, from :func:`load_model`.
        kind: "malmen" or "mend".
        changed: What is to be otherwise: last_blocks, rank, learning_rate (eta), meta_learning_rate, locality, steps.
    """
    from malmen.own_facts import usual_settings as usual  # noqa: PLC0415 (imports torch)

    return usual.usual_settings(model.language_model, kind, **changed)


def evaluate(
    model: "LoadedModel",
    editor: "TrainedEditor | FineTuning | Memit | Editor",
    tuples: Sequence[EditTuple],
    n_edits: int,
    max_groups: int | None = None,
    seed: int = 0,
    batch_size: BatchSize = "auto",
) -> "EditScores":
    """Edit groups of ``n_edits`` tuples, one group after the other, and return the mean scores of the groups.

    Args:
        model: The model, from :func:`load_model`. It stays as it was.
        editor: The editor, as in :func:`edit`, or any :class:`malmen.editing.editor.Editor` of the model's layers.
        tuples: The tuples to report on, from :func:`read_tuples`. A last group of fewer than ``n_edits`` is left out.
        n_edits: Number of edits m at once.
        max_groups: Number of groups to measure at most.
        seed: Seed of the choice of one equivalent prompt for each tuple.
        batch_size: Number of sequences that the model reads at once. Default: automatic.

    Raises:
        malmen.errors.UserError: if there are fewer than ``n_edits`` tuples, or the editor is not for this model.
    """
    from malmen.own_facts import measure  # noqa: PLC0415 (imports torch)
    from malmen.own_facts.editors import form_for  # noqa: PLC0415

    check_numbers(n_edits=n_edits, max_groups=max_groups, batch_size=batch_size)
    with model.asked_in(form_for(editor, model.language_model)):
        return measure.evaluate(model, editor, tuples, n_edits, max_groups, seed, batch_size)
