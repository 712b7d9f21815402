"""Editing one's own facts into a model, and reporting what came of it."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import AutoConfig

from malmen.config.settings import BatchSize, FineTuningSettings, MemitSettings, TaskName
from malmen.editing.blocks import Block
from malmen.editing.editor import Editor
from malmen.editing.editor_file import TrainedFor, load_editor
from malmen.editing.editors import required
from malmen.editing.evaluation import Scores, agreement, score
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layers import EditedLayer, PostEditWeights, Shifts, select_layers
from malmen.editing.memit.covariance import CollectedFrom, KeyCovariance, read_header
from malmen.editing.memit.editor import MemitEditor
from malmen.editing.memit.requests import Request
from malmen.editing.memit.targets import portions
from malmen.errors import DivergedError, UserError
from malmen.jobs.common import Machine
from malmen.models.hub import download
from malmen.models.identity import stored_dtype, weights_digest
from malmen.models.language_model import Batch, Example, LanguageModel, linear_layers, with_loss_weights
from malmen.models.load import load_model
from malmen.models.tasks import FACT_LABELS
from malmen.own_facts.facts import GENERAL_KNOWLEDGE, Fact, read_facts, read_unrelated
from malmen.own_facts.report import Answer, EditReport
from malmen.runtime.files import replacing_directory
from malmen.runtime.progress import logger, progress
from malmen.runtime.text import counted

T = TypeVar("T")

FINE_TUNING = "ft"
"""Stands for fine-tuning where a trained editor's file is asked for."""

MEMIT = "memit"
"""Stands for MEMIT where a trained editor's file is asked for."""


@dataclass(frozen=True)
class EditRequest:
    """What is to be edited into which model, and how.

    Attributes:
        model: a directory, or an id of the Hugging Face hub.
        editor: file of a trained editor, "ft" or "memit".
        facts: JSON lines of prompt, answer, rephrasings and subject.
        out: directory of the edited model.
        revision: commit of the hub's repository; needed with an id.
        unrelated: JSON lines of prompt and answer on which locality is measured; general knowledge if None.
        task: how the model answers, for "ft" and "memit"; what its architecture is used for here if None.
        layers: regular expressions for the names of the layers that "ft" tunes.
        last_blocks: "ft" tunes so many of the last layers that each expression names.
        finetuning: how "ft" tunes.
        statistics: file of the second moments that "memit" needs.
        memit: how "memit" edits.
        memit_file: where that was read; None if nowhere.
        batch_size: sequences run through the model at once.
        device: "auto", "cpu" or "cuda".
        seed: of the order in which "ft" sees facts, and of the texts that "memit" puts before prompts.
        force: whether an edited model that is already in ``out`` is replaced.
    """

    model: str
    editor: str
    facts: Path
    out: Path
    revision: str | None = None
    unrelated: Path | None = None
    task: TaskName | None = None
    layers: Sequence[str] = ()
    last_blocks: int = 3
    finetuning: FineTuningSettings = field(default_factory=FineTuningSettings)
    statistics: Path | None = None
    memit: MemitSettings = field(default_factory=MemitSettings)
    memit_file: Path | None = None
    batch_size: BatchSize = "auto"
    device: str = "auto"
    seed: int = 0
    force: bool = False


class WatchedModel(LanguageModel):
    """A language model that says how far it is when it runs through examples; ``doing`` names it."""

    doing = "running the model"

    def in_batches(
        self, purpose: str, examples: Sequence[Example], size: BatchSize, work: Callable[[Batch], T]
    ) -> Iterator[T]:
        """Yield what :meth:`LanguageModel.in_batches` does."""
        counted = super().in_batches(purpose, examples, size, lambda batch: (work(batch), batch.n_examples))
        for result, _ in progress(counted, len(examples), self.doing, weight=lambda pair: pair[1]):
            yield result


class WatchedFineTuning(FineTuningEditor):
    """Fine-tuning that says how far it is."""

    def minibatches(self, edits: Sequence[Example]) -> Iterator[list[Example]]:
        """Yield what :meth:`FineTuningEditor.minibatches` does."""
        batches = list(super().minibatches(edits))
        return progress(batches, len(batches), f"fine-tuning on {counted(len(edits), 'fact')}")


class WatchedMemit(MemitEditor):
    """MEMIT that says how far it is."""

    def targets(self, model: LanguageModel, block: Block, requests: Sequence[Request]) -> Tensor:
        """Return what :meth:`MemitEditor.targets` does."""
        parts = portions(requests, self.settings.batch_size)
        watched = progress(parts, len(parts), f"MEMIT's hidden states of {counted(len(requests), 'fact')}")
        return torch.cat([MemitEditor.targets(self, model, block, part) for part in watched])


@dataclass(frozen=True)
class Target:
    """The model to be edited.

    Attributes:
        directory: where it lies.
        weights: digest of its weights.
        task: how it answers.
        trained_for: what the editor was trained for; None for "ft" and "memit".
    """

    directory: Path
    weights: str
    task: TaskName
    trained_for: TrainedFor | None


class Kinds(NamedTuple, Generic[T]):
    """One thing each for the facts, for all their rephrasings, and for the unrelated questions."""

    facts: T
    rephrasings: T
    unrelated: T


def edit_facts(request: EditRequest) -> EditReport:
    """Edit facts into a model; write the edited model with ``report.json`` and ``report.md``, or nothing at all.

    Raises:
        UserError: if a file is malformed, the editor is not for this model, or the edit fails.
    """
    facts = read_facts(request.facts)
    unrelated = read_unrelated(request.unrelated) if request.unrelated else None
    check_out(request)
    check_layers(request)
    target = find_target(request)
    if request.editor == MEMIT:
        check_memit(request, target, facts)
    if target.trained_for and len(facts) > target.trained_for.n_edits:
        trained = target.trained_for.n_edits
        logger.warning("%d facts at once are more than the %d that the editor was trained for.", len(facts), trained)
    model = load_target(target, request.device)
    rephrased = [other for fact in facts for other in fact.rephrased()]
    asked = Kinds(facts, rephrased, unrelated or read_unrelated(GENERAL_KNOWLEDGE[target.task]))
    examples = Kinds(*(encode(model, kind) for kind in asked))
    editor = make_editor(request, model)
    before = ask(model, examples, request.batch_size, "before the edit")
    edited = edited_weights(editor, model, with_sources(examples.facts, asked))
    with edited.applied(), replacing_directory(request.out.resolve()) as folder:
        after = ask(model, examples, request.batch_size, "after the edit")
        found = metrics(before, after, known=unrelated is not None)
        answered = answers(model, target.task, facts, before.facts, after.facts)
        report = make_report(request, target, asked, found, answered)
        model.module.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        report.write(folder)
    return report


def check_out(request: EditRequest) -> None:
    """Refuse a directory that writing the edited model into would destroy.

    Raises:
        UserError: if it is a file, holds an input, or holds anything else that may not be replaced.
    """
    out = request.out.resolve()
    if out.is_file():
        raise UserError(f"{request.out} is a file; choose another --out.")
    if not out.is_dir() or not any(out.iterdir()):
        return
    optional = (request.unrelated, request.statistics, request.memit_file)
    inputs = [Path(request.model), Path(request.editor), request.facts, *optional]
    if any(path and path.exists() and path.resolve().is_relative_to(out) for path in inputs):
        raise UserError(f"{request.out} holds what is to be read; choose another --out.")
    if not (out / "report.json").is_file():
        raise UserError(f"{request.out} is not empty and holds no edited model; choose another --out.")
    if not request.force:
        raise UserError(f"{request.out} already holds an edited model; choose another --out, or add --force.")


def check_layers(request: EditRequest) -> None:
    """Refuse what names no layers in any model; raise :class:`UserError` if it is no regular expression."""
    for pattern in request.layers:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"--layers is '{pattern}', which is no regular expression ({error}); correct it.") from None


def model_directory(request: EditRequest) -> Path:
    """Return where the model lies: as named, or in the hub's cache.

    Raises:
        UserError: if it is neither a directory nor a hub id with a revision, or cannot be fetched.
    """
    if Path(request.model).is_dir():
        return Path(request.model)
    if request.revision is None:
        raise UserError(
            f"There is no directory {request.model}; if it is an id of the Hugging Face hub, add --revision with the "
            "commit of its repository."
        )
    return Path(download(request.model, request.revision))


def find_target(request: EditRequest) -> Target:
    """Return the model, and its task: the editor's, or else the one asked for, or else its architecture's.

    Raises:
        UserError: if there is no such model or editor, or the editor is for another model.
    """
    directory = model_directory(request)
    weights = weights_digest(directory)
    if request.editor in (FINE_TUNING, MEMIT):
        return Target(directory, weights, request.task or usual_task(directory), None)
    trained_for = read_trained_for(Path(request.editor))
    target = Target(directory, weights, trained_for.task, trained_for)
    check_weights(target, f"{request.editor} was trained for", trained_for, "train an editor for this model")
    if trained_for.dtype != (stored := stored_dtype(directory)):
        raise UserError(
            f"{request.editor} was trained for {trained_for.model!r} in {trained_for.dtype}, but the weights in "
            f"{directory} are stored in {stored}; train an editor with the model's 'dtype: {stored}'."
        )
    return target


def check_weights(target: Target, what: str, made_for: TrainedFor | CollectedFrom, remedy: str) -> None:
    """Refuse what was made for another model.

    Raises:
        UserError: if it was.
    """
    if made_for.weights != target.weights:
        raise UserError(
            f"{what} the model {made_for.model!r}, whose weights have SHA-256 {made_for.weights[:12]}..., but those in "
            f"{target.directory} have {target.weights[:12]}...; {remedy}, or edit that one."
        )


def check_memit(request: EditRequest, target: Target, facts: Sequence[Fact]) -> None:
    """Refuse what MEMIT cannot edit.

    Raises:
        UserError: if the model does not continue prompts, second moments of its keys are missing or another model's, or
            nothing tells what a fact is about.
    """
    if target.task != "question_answering":
        raise UserError(
            f"MEMIT edits models that continue a prompt, but {target.directory} holds one for {target.task!r}; use "
            "another --editor."
        )
    if request.statistics is None:
        raise UserError(
            "MEMIT needs --statistics with the second moments of the model's keys; the workflow writes them as "
            "second_moments.safetensors."
        )
    collected = CollectedFrom.read(request.statistics)
    check_weights(target, f"{request.statistics} was collected from", collected, "collect it from this model")
    for fact in facts:
        if not (fact.subject or fact.rephrasings):
            raise UserError(
                f"{fact.place}: nothing tells MEMIT what the fact is about; add its 'subject', or 'rephrasings', whose "
                "words in common with the prompt are taken for it."
            )


def read_trained_for(path: Path) -> TrainedFor:
    """Return what an editor was trained for.

    Raises:
        UserError: if there is no such editor, or its training diverged.
    """
    if not path.is_file():
        raise UserError(f"There is no editor {path}; train one with 'snakemake editors', or use --editor ft or memit.")
    trained_for = TrainedFor.read(path)
    if trained_for.diverged:
        raise UserError(f"{path} cannot be used, as its {trained_for.diverged}; choose another editor.")
    return trained_for


def usual_task(directory: Path) -> TaskName:
    """Return what the architecture in a directory is used for here.

    Raises:
        UserError: if the directory holds no model.
    """
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # A broken file makes transformers raise errors of any kind.
        raise UserError(f"{directory} has no readable config.json ({type(error).__name__}); check --model.") from None
    if config.is_encoder_decoder:
        return "sequence_to_sequence"
    return "fact_checking" if config.model_type == "bert" else "question_answering"


def load_target(target: Target, device: str) -> WatchedModel:
    """Load a model in the precision in which it is stored.

    Raises:
        UserError: if it cannot be loaded, or there is no such device.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("There is no GPU that torch can use for --device cuda; use --device cpu.")
    chosen = "cuda" if available and device == "auto" else device.replace("auto", "cpu")
    Machine(chosen, torch.get_num_threads()).set_up()
    model = load_model(target.directory, target.task, stored_dtype(target.directory), chosen)
    return WatchedModel(model.module, model.tokenizer, model.task)


def make_editor(request: EditRequest, model: LanguageModel) -> Editor:
    """Return the editor that was asked for: the place for another kind of editor.

    Raises:
        UserError: if it is not for this model, or fine-tuning does not know what to tune.
    """
    layers = [EditedLayer(name, module) for name, module in linear_layers(model.module).items()]
    if request.editor == FINE_TUNING:
        return fine_tuning_editor(request, model, layers)
    if request.editor == MEMIT:
        return memit_editor(request, layers)
    editor = load_editor(Path(request.editor), layers)
    # The physical batch size changes time and memory, not results.
    editor.settings = replace(editor.settings, batch_size=request.batch_size)
    return editor


def memit_editor(request: EditRequest, layers: Sequence[EditedLayer]) -> WatchedMemit:
    """Return MEMIT on those layers whose second moments are given."""
    statistics = required(request.statistics)
    _, collected = read_header(statistics)
    chosen = [layer for layer in layers if layer.name in collected]
    return WatchedMemit(chosen, request.memit, KeyCovariance.open(statistics, chosen), request.seed)


def fine_tuning_editor(request: EditRequest, model: LanguageModel, layers: Sequence[EditedLayer]) -> WatchedFineTuning:
    """Return fine-tuning of the named ones of a model's layers.

    Raises:
        UserError: if none are named.
    """
    if not request.layers:
        names = ", ".join(layer.name for layer in layers[-4:])
        raise UserError(
            f"Fine-tuning needs --layers with a regular expression; the last layers of the model are {names}."
        )
    chosen = {
        layer.name: layer
        for pattern in request.layers
        for layer in select_layers(model.module, pattern, request.last_blocks)
    }
    return WatchedFineTuning(list(chosen.values()), request.finetuning, request.seed)


def encode(model: LanguageModel, facts: Sequence[Fact]) -> list[Example]:
    """Encode facts.

    Raises:
        UserError: naming the file and line of a fact that the model cannot read.
    """
    examples = []
    for fact in facts:
        try:
            examples += model.encode([fact.pair])
        except UserError as error:
            raise UserError(f"{fact.place}: {error}") from None
    return with_loss_weights(examples)


def with_sources(edits: Sequence[Example], asked: Kinds[list[Fact]]) -> list[Example]:
    """Let each edit keep its fact, as an edit tuple, for editors that look at the text."""
    tuples = [fact.edit_tuple(other.pair) for fact, other in zip(asked.facts, cycle(asked.unrelated), strict=False)]
    return [replace(edit, source=item) for edit, item in zip(edits, tuples, strict=True)]


def ask(model: WatchedModel, examples: Kinds[list[Example]], batch_size: BatchSize, when: str) -> Kinds[Scores]:
    """Answer the facts, their rephrasings and the unrelated questions; ``when`` is shown with the progress."""
    scores = []
    for what, kind in zip(("facts", "rephrasings", "unrelated questions"), examples, strict=True):
        model.doing = f"{what} {when}"
        scores.append(score(model, kind, batch_size) if kind else Scores(torch.empty(0), []))
    return Kinds(*scores)


def edited_weights(editor: Editor, model: WatchedModel, edits: Sequence[Example]) -> PostEditWeights:
    """Return the weights with all facts edited into them.

    Raises:
        UserError: if the shifts are not finite.
    """
    model.doing = f"keys and value gradients of {counted(len(edits), 'fact')}"
    try:
        shifts: Shifts = editor.shifts(model, edits)
    except DivergedError as error:
        raise UserError(f"The edit failed: {error}; edit fewer facts at once, or use another editor.") from None
    return PostEditWeights(editor.layers, shifts)


def metrics(before: Kinds[Scores], after: Kinds[Scores], known: bool) -> dict[str, float]:
    """Return the metrics of a report; LS among them if the right answers to unrelated questions are ``known``."""
    found: dict[str, float] = {}
    for name, pre, post in zip(("ES", "GS", "LS"), before, after, strict=True):
        if len(pre.correct) and (known or name != "LS"):
            found |= {name: post.correct.mean().item(), f"pre_{name}": pre.correct.mean().item()}
    return found | {"agreement": agreement(after.unrelated.predictions, before.unrelated.predictions)}


def answers(model: LanguageModel, task: TaskName, facts: Sequence[Fact], before: Scores, after: Scores) -> list[Answer]:
    """Return how each fact was answered, in words."""
    labels = {number: label for label, number in FACT_LABELS.items()}

    def words(prediction: Tensor) -> str:
        if task == "fact_checking":
            return labels[int(prediction)]
        return str(model.tokenizer.decode(prediction.tolist())).strip()

    return [
        Answer(fact.pair.prompt, fact.pair.answer, words(pre), words(post), share)
        for fact, pre, post, share in zip(
            facts, before.predictions, after.predictions, after.correct.tolist(), strict=True
        )
    ]


def make_report(
    request: EditRequest,
    target: Target,
    asked: Kinds[list[Fact]],
    found: dict[str, float],
    answered: list[Answer],
) -> EditReport:
    """Put together the report."""
    return EditReport(
        model=request.model,
        revision=request.revision,
        weights=target.weights,
        editor=request.editor,
        trained_for=target.trained_for,
        statistics=str(request.statistics) if request.editor == MEMIT else None,
        facts=str(request.facts),
        unrelated=str(request.unrelated) if request.unrelated else None,
        counts={name: len(kind) for name, kind in asked._asdict().items()},
        metrics=found,
        answers=answered,
    )
