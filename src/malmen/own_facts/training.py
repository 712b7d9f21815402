"""Training an editor for a user's own model and tuples, by the same code as the workflow's jobs."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from malmen.config.base import Answers
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.data.formats import TUPLES
from malmen.data.own_data import topics_of
from malmen.data.parsing import key
from malmen.data.splitting import draw, split_tuples
from malmen.data.training_tuples import one_of, read_training_tuples
from malmen.data.tuples import EditTuple, PromptAnswer, tuple_to_json, write_jsonl
from malmen.data.user_text import named
from malmen.editing.base_outputs import BaseOutputs, CachedBaseOutputs, CacheKey, LiveBaseOutputs
from malmen.editing.editor_file import TrainedFor
from malmen.editing.feed_forward import choose_layers
from malmen.editing.layer_checks import check_layers
from malmen.editing.layers import EditedLayer
from malmen.errors import UserError
from malmen.jobs import train_editor as job
from malmen.models.prompt_form import PLAIN
from malmen.own_facts.facts import Fact
from malmen.own_facts.measure import evaluate
from malmen.own_facts.methods import check_patterns
from malmen.own_facts.model import LoadedModel
from malmen.own_facts.prompting import log_first
from malmen.own_facts.report import EditScores
from malmen.own_facts.teaching import STATE
from malmen.own_facts.trained import FILE, TrainedEditor
from malmen.own_facts.training_cost import probe
from malmen.own_facts.training_report import TrainingReport, report_of
from malmen.own_facts.usual_settings import to_try, usual_settings, with_steps
from malmen.results.costs import Cost
from malmen.results.run import Run
from malmen.results.training import TrainingFile
from malmen.runtime.checkpoint import HEADER, Checkpoint, Saving
from malmen.runtime.files import replacing_directory
from malmen.runtime.noted import NOTES
from malmen.runtime.problems import refuse_all
from malmen.runtime.progress import logger
from malmen.runtime.ranks import ranks
from malmen.runtime.text import counted, short_repr

CACHE, HELD_OUT, MODEL = "cache", "held_out.jsonl", "model"
"""What lies beside a trained editor and its :data:`STATE`: the cache while it is trained, the tuples on which it was
measured, and the model if it was taught first."""
HELD_OUT_SHARE = 5
"""One in this many tuples is held out, at most."""
GROUPS = 2
"""Groups of held-out tuples on which a trained editor is measured, at most."""
PASSES = 1.2
"""From so many passes over the tuples on, a cache of what the unedited model computes is worth its time."""
SHORT_STEPS, SHORT_EDITS = 12, 64
"""Meta-steps and edits at once in a scan of settings."""


@dataclass(frozen=True)
class Training:
    """The training of one editor, as it was planned.

    Attributes:
        model: the model.
        layers: the layers to edit.
        settings: the editor.
        run: the number of edits m and the seed.
        tuples: those to train on.
        held_out: those to measure the editor on, which share no subject or question with the others.
    """

    model: LoadedModel
    layers: list[EditedLayer]
    settings: HyperNetworkEditorSettings
    run: Run
    tuples: Sequence[EditTuple]
    held_out: Sequence[EditTuple]

    @property
    def what(self) -> str:
        """The name of the work in messages."""
        return f"{self.settings.label} on {self.model.source.name}, m = {self.run.n_edits}, seed {self.run.seed}"

    @property
    def steps(self) -> int:
        """Number of meta-steps."""
        return self.settings.training.steps(len(self.tuples), self.run.n_edits)

    @property
    def belongs_to(self) -> dict[str, Any]:
        """All that a saved state depends on. The number of steps is left out, so that a longer training goes on."""
        source, settings = self.model.source, asdict(self.settings)
        settings["training"] |= {"min_steps": None, "max_steps": None}
        return {
            "weights": source.weights,
            "dtype": source.dtype,
            "task": source.task,
            "form": asdict(self.model.language_model.form),
            "layers": [layer.name for layer in self.layers],
            "settings": settings,
            "run": asdict(self.run),
            "tuples": hashlib.sha256(json.dumps([tuple_to_json(item) for item in self.tuples]).encode()).hexdigest(),
        }

    @property
    def measured_at_once(self) -> int:
        """Number of edits at once when the editor is measured on the held-out tuples."""
        return min(self.run.n_edits, len(self.held_out))

    def take(self, checkpoint: Checkpoint, base_outputs: BaseOutputs) -> tuple[TrainedEditor, TrainingFile, Cost]:
        """Train the editor from a checkpoint's state on; return it with the losses of its steps, and what it cost."""
        source, form = self.model.source, self.model.language_model.form
        network, record, cost = job.train_editor(
            self.model.language_model, self.layers, self.settings, self.tuples, self.run, checkpoint, base_outputs
        )
        trained_for = TrainedFor(
            source.name,
            source.weights,
            source.task,
            self.settings.label,
            **asdict(self.run),
            dtype=source.dtype,
            diverged=record.reason,
            form=None if form == PLAIN else form,
        )
        return TrainedEditor(trained_for, network=network), record, cost


def train_editor(
    model: LoadedModel,
    tuples: Sequence[EditTuple],
    n_edits: int,
    settings: HyperNetworkEditorSettings | None,
    layers: Sequence[str],
    seed: int,
) -> TrainedEditor:
    """Train an editor in memory on all tuples; arguments and errors as in :func:`malmen.train_editor`."""
    training = plan(model, tuples, [], n_edits, settings, layers, seed)
    live = LiveBaseOutputs(model.language_model, training.layers)
    return training.take(Checkpoint(what=training.what), live)[0]


def train_into(
    out: Path,
    model: LoadedModel,
    tuples: Sequence[EditTuple],
    n_edits: int,
    settings: HyperNetworkEditorSettings | None,
    layers: Sequence[str],
    seed: int,
    tune: bool = False,
) -> TrainingReport:
    """Train an editor into a folder, measure it on held-out tuples, and report; as :func:`malmen.train_editor`.

    A training that was interrupted, or is to be longer than before, goes on from its saved state. All ranks call it,
    with the same arguments; the first one writes.
    """
    NOTES.clear()
    if tuples:
        log_first(model.language_model, tuples[0].edit)
    kept, held_out = hold_out(tuples, n_edits, seed)
    training = plan(model, kept, held_out, n_edits, settings, layers, seed)
    if tune:
        training = replace(training, settings=tuned(training))
    checkpoint = Saving(out / STATE).checkpoint("training", training.what, __name__, training.belongs_to)
    ranks().from_first(lambda: refuse_to_lose(training, out, checkpoint))
    cost = probe(training.model.language_model, training.layers, training.settings, training.tuples, n_edits, seed)
    logger.info("%s", cost.expected(training.what, training.steps))
    with base_outputs_of(training, out / CACHE) as base_outputs:
        editor, record, spent = training.take(checkpoint, base_outputs)
    if record.reason:
        raise UserError(f"{training.what}: {record.reason}; lower --learning-rate or --meta-learning-rate.")
    if ranks().first:
        editor.save(out / FILE)
        write_jsonl(out / HELD_OUT, map(tuple_to_json, held_out))
    report = report_of(training, record, spent, measured(training, editor))
    if ranks().first:
        report.write(out)
    return report


def tuples_in(
    files: Sequence[Path], pool: Sequence[Fact], answers: Answers, skip_bad: bool, seed: int
) -> list[EditTuple]:
    """Return the edit tuples of some files, each once; arguments and errors as in :func:`malmen.read_tuples`."""
    found: dict[str, tuple[EditTuple, Path]] = {}
    problems: list[str] = []
    n_records = 0
    for file in files:
        given = read_training_tuples(file, [question.pair for question in pool], answers, skip_bad, seed)
        n_records += given.read.records
        if n := len(given.drawn):
            have, each = counted(n, "fact has", "facts have"), "" if n == 1 else " for each"
            logger.info("%s no unrelated question, so one was drawn%s.", have, each)
        if n := len(given.without_rephrasings):
            have = counted(n, "fact has", "facts have")
            logger.info("%s no rephrasing, so the editor learns less to generalise.", have)
        for item in given.tuples:
            earlier, place = found.setdefault(item.id, (item, file))
            if earlier == item:
                continue
            if given.read.format == TUPLES:  # another file counts its tuples in the same way
                renamed = replace(item, id=f"{item.id} of {named(file)}")
                found.setdefault(renamed.id, (renamed, file))
            elif earlier.edit == item.edit:
                found[item.id] = joined(earlier, item), place
            else:
                problems.append(
                    f"The prompt {short_repr(item.edit.prompt)} has the answer {short_repr(item.edit.answer)} in "
                    f"{named(file)} but {short_repr(earlier.edit.answer)} in {named(place)}; keep one of them."
                )
    if not skip_bad:
        refuse_all(problems, counted(n_records, "record"))
    elif problems:
        logger.warning("Left out %s; the first: %s", counted(len(problems), "contradiction"), problems[0])
    tuples = [item for item, _ in found.values()]
    return tuples if len(files) == 1 else without_edited_questions(tuples, pool, seed)


def without_edited_questions(tuples: Sequence[EditTuple], pool: Sequence[Fact], seed: int) -> list[EditTuple]:
    """Return tuples that get an unrelated question of the pool where theirs is one that a tuple edits."""
    edited = {key(prompt) for item in tuples for prompt in (item.edit.prompt, *item.equivalent)}
    left = [question.pair for question in pool if key(question.prompt) not in edited]
    return [
        replace(item, unrelated=one_of(left, seed, item.id)) if left and key(item.unrelated.prompt) in edited else item
        for item in tuples
    ]


def joined(earlier: EditTuple, item: EditTuple) -> EditTuple:
    """Return the tuple of one fact in two files, with the rephrasings of both."""
    rephrasings = dict.fromkeys((*earlier.equivalent, *item.equivalent))
    rephrasings.pop(item.edit.prompt, None)
    return replace(earlier, equivalent=tuple(rephrasings) or (item.edit.prompt,))


def plan(
    model: LoadedModel,
    tuples: Sequence[EditTuple],
    held_out: Sequence[EditTuple],
    n_edits: int,
    settings: HyperNetworkEditorSettings | None,
    layers: Sequence[str],
    seed: int,
) -> Training:
    """Return the training of an editor with these settings, or those that suit the model.

    Raises:
        UserError: if there are too few tuples, or the model has no such layers.
    """
    settings = settings or usual_settings(model.language_model)
    check_patterns(layers)
    if len(tuples) < n_edits:
        kept = f", besides {len(held_out)} that are held out to measure the editor" if held_out else ""
        raise UserError(
            f"{n_edits} edits at once need as many tuples to train on, but there are {len(tuples)}{kept}; lower "
            "n_edits (--n-edits), or give more tuples."
        )
    edited = choose_layers(model.language_model, layers, settings.last_blocks)
    check_layers(model.language_model, edited, settings.hypernetwork.tokens)
    return Training(model, edited, settings, Run(n_edits, seed), tuples, held_out)


def hold_out(tuples: Sequence[EditTuple], n_edits: int, seed: int) -> tuple[Sequence[EditTuple], Sequence[EditTuple]]:
    """Return the tuples to train on, and those to measure on: two groups of m, but at most a fifth of all.

    Tuples that share a subject or a question, in any of its forms, stay on one side. So do the unrelated questions.
    """
    wanted = min(GROUPS * n_edits, len(tuples) // HELD_OUT_SHARE)
    if not wanted:
        return tuples, []
    shares = {"train": len(tuples) - wanted, "tune": 0, "validation": wanted}
    parts = split_tuples(tuples, shares, seed, topics_of)
    return with_parted_questions([*parts["train"], *parts["tune"]], parts["validation"], seed)


def with_parted_questions(
    kept: Sequence[EditTuple], held_out: Sequence[EditTuple], seed: int
) -> tuple[Sequence[EditTuple], Sequence[EditTuple]]:
    """Divide the unrelated questions that both sides ask, so that LS is not measured on those that training preserves.

    One in :data:`HELD_OUT_SHARE` of them is held out, at least one. A tuple whose question is on the other side gets
    another one. If both sides ask a single question, it stays.
    """
    sides = [{key(item.unrelated.prompt): item.unrelated for item in items} for items in (kept, held_out)]
    shared = sorted(sides[0].keys() & sides[1].keys(), key=lambda name: draw(seed, f"unrelated/{name}"))
    reserved = set(shared[: -(-len(shared) // HELD_OUT_SHARE)])
    to_train = [pair for name, pair in sides[0].items() if name not in reserved]
    to_measure = [pair for name, pair in sides[1].items() if name in reserved or name not in sides[0]]
    if not (shared and to_train):
        return kept, held_out

    def parted(items: Sequence[EditTuple], own: Sequence[PromptAnswer]) -> list[EditTuple]:
        names = {key(pair.prompt) for pair in own}
        return [
            item if key(item.unrelated.prompt) in names else replace(item, unrelated=one_of(own, seed, item.id))
            for item in items
        ]

    return parted(kept, to_train), parted(held_out, to_measure)


def refuse_to_lose(training: Training, out: Path, checkpoint: Checkpoint) -> None:
    """Raise :class:`UserError` if a folder holds what a training would overwrite or cannot take back.

    That is an editor that was trained otherwise, or with more steps. The header of its saved state tells both.
    """
    assert checkpoint.path
    others = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.exists() else set()
    others -= {MODEL, CACHE}
    if not others or (others == {STATE} and not checkpoint.path.exists()):  # or what is left of teaching the model
        return
    try:
        with safe_open(checkpoint.path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            belongs_to, values = header["belongs_to"], header["values"]
            reason, taken = values["reason"], len(values["losses"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise UserError(f"{out} is not empty and holds no training to go on with; choose another folder.") from None
    if belongs_to != checkpoint.belongs_to:
        if reason and others == {STATE}:  # it diverged and gave no editor
            return
        raise UserError(
            f"{out} holds an editor that was trained with another model, other data, settings or code; choose another "
            "folder, or delete this one."
        )
    if taken > training.steps:
        raise UserError(
            f"{training.what}: {taken} meta-steps were taken already, more than {training.steps}; give --steps {taken} "
            "or more, or choose another folder."
        )


@contextmanager
def base_outputs_of(training: Training, folder: Path) -> Iterator[BaseOutputs]:
    """Give the outputs of the unedited model: from a temporary cache where tuples are seen more than once.

    A training with a rollout needs none of them. Ranks fill one cache together.
    """
    here = ranks()
    model, layers, tokens = training.model.language_model, training.layers, training.settings.hypernetwork.tokens
    live = LiveBaseOutputs(model, layers)
    few = training.steps * training.run.n_edits < PASSES * len(training.tuples)
    if few or training.settings.training.rollout:
        yield live
        return
    made_for = CacheKey(training.model.source.weights, [layer.name for layer in layers], tokens)
    try:
        if here.first:  # what a training left that was killed, perhaps another one
            shutil.rmtree(folder, ignore_errors=True)
        cache = CachedBaseOutputs.of_tuples(model, layers, tokens, training.tuples)
        if here.from_first(lambda: cache.size > free_bytes(folder) / 2):
            yield live
            return
        logger.info("What the unedited model computes is kept on disk: %.1f GB until the end.", cache.size / 1e9)
        with replacing_directory(folder) if here.first else nullcontext(folder) as temporary:
            cache.write(here.gathered(temporary)[0], made_for, training.settings.batch_size)
        here.meet()  # The others wait until the first one has put the cache in its place.
        yield CachedBaseOutputs.open(folder, model, layers, made_for)
    finally:
        if here.first:
            shutil.rmtree(folder, ignore_errors=True)


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk on which a folder lies, or is to be made."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def measured(training: Training, editor: TrainedEditor) -> EditScores | None:
    """Return the scores of an editor on the held-out tuples; None if there are none."""
    if not training.held_out:
        logger.warning("No tuple was held out, so the editor was not measured; give at least 10 tuples.")
        return None
    n_edits, batch_size = training.measured_at_once, training.settings.batch_size
    return evaluate(training.model, editor, training.held_out, n_edits, GROUPS, training.run.seed, batch_size)


def tuned(training: Training) -> HyperNetworkEditorSettings:
    """Return the settings of a short scan whose editor has the highest mean of ES, GS and LS on held-out tuples.

    Raises:
        UserError: if no tuple is held out, or all of them diverge.
    """
    if not training.held_out:
        raise UserError("--tune measures on held-out tuples, but there are too few to hold out any; give at least 10.")
    n_edits = min(training.measured_at_once, SHORT_EDITS)
    found: list[tuple[float, HyperNetworkEditorSettings]] = []
    live = LiveBaseOutputs(training.model.language_model, training.layers)
    for settings in to_try(training.settings):
        eta = settings.hypernetwork.learning_rate
        tried = replace(with_steps(settings, SHORT_STEPS), may_diverge=True)  # another one may not
        short = replace(training, run=replace(training.run, n_edits=n_edits), settings=tried)
        editor, record, _ = short.take(Checkpoint(what=f"{settings.label} with eta {eta:g}"), live)
        if record.reason:
            continue
        scores = evaluate(training.model, editor, training.held_out, n_edits, 1, training.run.seed, settings.batch_size)
        found.append((sum(scores[name] for name in ("ES", "GS", "LS")) / 3, settings))
        logger.info("eta %g: ES %.1f %%, GS %.1f %%, LS %.1f %%", eta, *(100 * scores[n] for n in ("ES", "GS", "LS")))
    if not found:
        raise UserError("Every setting of the scan diverged; give a smaller --learning-rate.")
    best = max(found, key=lambda pair: pair[0])[1]
    logger.info("The scan chose eta %g.", best.hypernetwork.learning_rate)
    return best
