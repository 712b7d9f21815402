"""What the sections of a configuration must fulfil together."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from malmen.config.architectures import layer_names_of
from malmen.config.base import Corpus, Dataset
from malmen.config.configuration import Config
from malmen.config.editors import EditorSettings
from malmen.config.finetuning import FineTuningEditorSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.models import Model
from malmen.config.outputs import Failures, MovedTable, Residual, RoundsTable
from malmen.errors import UserError
from malmen.results.rounds import MEASURES, UNEDITED
from malmen.runtime.model_files import FACT_HEAD, tensors_in, weights_files
from malmen.runtime.text import either

FILTERING: dict[Corpus, Dataset] = {"fever": "fever", "zsre": "zsre_alternative"}
"""The data set of a model that filters rephrasings: one whose model knows the correct answers."""
RESERVED = ("raw", "published")
"""Folders of ``data`` that belong to all runs."""


def mistakes(config: Config) -> list[str]:
    """Return what is wrong with a configuration whose sections are valid, one sentence without full stop for each."""
    unknown = list(unknown_names(config))
    found = [*names(config), *own_files(config), *unknown, *filters(config)]
    more = (layers, devices, uses, limits, rounds, sizes, heads)
    return found if unknown else [*found, *(sentence for check in more for sentence in check(config))]


def names(config: Config) -> Iterator[str]:
    """Yield what is wrong with the names of the run and of models."""
    if config.run in RESERVED:
        yield f"run is {config.run!r} but data/{config.run} holds other files; choose another"
    for name in config.tables:
        if name == "compute" or name in config.figures:
            taken = "that of the table of times and memory" if name == "compute" else "also that of a figure"
            yield f"tables.{name} has a name that is {taken}; choose another"
    labelled: dict[str, str] = {}
    for name, model in config.models.items():
        if (other := labelled.setdefault(model.label, name)) != name:
            yield f"models.{name}.label is {model.label!r}, as is that of models.{other}; change one of them"


def own_files(config: Config) -> Iterator[str]:
    """Yield which of the user's files the run would make or remove."""
    ours = [Path("data", name) for name in (*RESERVED, config.run)] + [Path("results", config.run)]
    for key, file in (("facts", config.data.files.facts), ("unrelated", config.data.files.unrelated)):
        if file and any(folder in Path(file).parents for folder in ours):
            yield f"data.files.{key} is {file}, in a folder of the workflow; put the file elsewhere"
        if file == "-":
            yield f"data.files.{key} is standard input, which a run cannot record; write it into a file"


def unknown_names(config: Config) -> Iterator[str]:
    """Yield where a figure or table names a model or an editor that is not there."""
    asked = [*(use[:3] for use in (*config.uses(), *config.rounds_uses())), *config.memory_uses()]
    yield from dict.fromkeys(
        unknown(where, "model", model, list(config.models)) for where, model, _ in asked if model not in config.models
    )
    yield from dict.fromkeys(
        unknown(where, "editor", editor, list(config.editors))
        for where, _, editor in asked
        if editor not in config.editors
    )
    limits = {"evaluation.max_edits_of": config.evaluation.max_edits_of}
    for name, model in config.models.items():
        limits |= {f"models.{name}.at_most": model.at_most, f"models.{name}.at_most_rounds": model.at_most_rounds}
    for where, limited in limits.items():
        missing = (editor for editor in limited if editor not in config.editors)
        yield from (unknown(where, "editor", editor, list(config.editors)) for editor in missing)


def unknown(where: str, kind: str, name: str, known: Sequence[str]) -> str:
    """Return a sentence about an unknown name."""
    return f"{where} names the {kind} {name!r}; known are {', '.join(known)}"


def filters(config: Config) -> Iterator[str]:
    """Yield what is wrong with the models that filter rephrasings."""
    for corpus, name in config.data.rebuild.filter.items():
        where = f"data.rebuild.filter.{corpus}"
        if name not in config.models:
            yield unknown(where, "model", name, list(config.models))
        elif config.models[name].dataset != FILTERING[corpus]:
            yield f"{where} is {name!r}, whose dataset is not {FILTERING[corpus]!r}; choose another"


def heads(config: Config) -> Iterator[str]:
    """Yield where a model that checks facts would do so at random, because nothing trains its head."""
    for name, model in config.models.items():
        if model.task != "fact_checking" or model.base_finetuning:
            continue
        remedy = f"set models.{name}.base_finetuning, so that it is fine-tuned on claims"
        if model.scratch:
            yield f"models.{name}.scratch is a BERT without a fact-checking head; {remedy}"
        if model.directory and has_no_head(model.directory):
            yield (
                f"models.{name}.pretrained is {model.pretrained}, a BERT without a fact-checking head; {remedy}, or "
                "give a fine-tuned one"
            )


def has_no_head(directory: Path) -> bool:
    """Return whether the weights in a directory are known to have no fact-checking head."""
    try:
        names = [name for file in weights_files(directory) for name in tensors_in(file)]
    except UserError:  # Loading the model says what is wrong.
        return False
    return not any(name.startswith(FACT_HEAD) for name in names)


def layers(config: Config) -> Iterator[str]:
    """Yield where an editor that is used or made ready edits layers that its model is known not to have."""
    shown = {use[1:3] for use in (*config.uses(), *config.rounds_uses())}
    asked = shown | {use[1:] for use in config.memory_uses()} | {*config.to_prepare()}
    for name, model in config.models.items():
        editors: dict[str, list[str]] = {}
        for editor in config.editors:
            for reason in missing_layers(model, model.editors[editor]) if (name, editor) in asked else ():
                editors.setdefault(reason, []).append(editor)
        for reason, (first, *others) in editors.items():
            also = f" (like {', '.join(others)})" if others else ""
            yield f"models.{name}.editors.{first}{also} {reason}"


def missing_layers(model: Model, editor: EditorSettings) -> Iterator[str]:
    """Yield why an editor cannot edit a model, where that is known, as the end of a sentence."""
    if model.task not in editor.tasks:
        allowed = either([repr(task) for task in editor.tasks])
        yield f"has method {editor.method!r}, which edits models whose task is {allowed}, but task is {model.task!r}"
    if isinstance(editor, FineTuningEditorSettings) and (
        editor.finetuning.end_of_sequence and model.task == "fact_checking"
    ):
        yield "ends answers with the end of the sequence, but a fact checker's answer is one logit, which has no end"
    source = model.scratch or model.directory
    known = layer_names_of(source) if source else []
    needed = editor.last_blocks if editor.blocks is None else editor.blocks[-1] + 1
    for kind in editor.ffn_layers if known else ():
        for pattern in model.ffn.patterns()[kind]:
            found = [name for name in known if re.fullmatch(pattern, name)]
            if len(found) < needed:
                edits = f"the last {editor.last_blocks}" if editor.blocks is None else f"number {editor.blocks[-1]}"
                yield (
                    f"edits {edits} of the layers named like '{pattern}', but the model has {len(found)}; its "
                    f"last layers are {', '.join(known[-2:])}"
                )


def devices(config: Config) -> Iterator[str]:
    """Yield where parts of a model, or of its editors, are to lie on devices that its jobs do not have."""
    for name, model in config.models.items():
        where, n_ranks = f"models.{name}", config.ranks(name)
        if model.device_map is not None and model.workers > 1:
            yield (
                f"{where}.device_map spreads one model, but {where}.workers is {model.workers}, and each of these "
                "processes has a whole one; remove one of the two"
            )
        placed: dict[int | str, str] = {}  # a key that names it, by device: once, not for each editor
        if isinstance(model.device_map, Mapping) and n_ranks == 1:
            placed |= dict.fromkeys(model.device_map.values(), f"{where}.device_map")
        for editor, settings in model.editors.items():
            if isinstance(settings, HyperNetworkEditorSettings) and settings.hypernetwork.device:
                placed.setdefault(settings.hypernetwork.device, f"{where}.editors.{editor}.hypernetwork.device")
        for device, key in placed.items():
            number = gpu_number(device)
            if n_ranks > 1:
                yield (
                    f"{key} is {device!r}, but {n_ranks} processes share a job with {name}, each with one device; "
                    f"remove it, or set {where}.{'workers' if config.device == 'cpu' else 'gpus'} to 1"
                )
            elif config.device == "cuda" and number is not None and number >= model.gpus:
                yield (
                    f"{key} names GPU {number}, counted from 0, but a job with {name} takes {model.gpus}; raise "
                    f"{where}.gpus to {number + 1}"
                )


def gpu_number(device: int | str) -> int | None:
    """Return the number of a GPU by its name, such as 1 or "cuda:1"; None of another device."""
    found = re.fullmatch(r"(?:cuda:)?(\d+)", str(device))
    return int(found[1]) if found else None


def uses(config: Config) -> Iterator[str]:
    """Yield where a figure or table shows what its editor or its model does not have."""
    residuals = [
        (f"figures.{name}", figure.model, editor)
        for name, figure in config.curves.items()
        if isinstance(figure, Residual)
        for editor in figure.editors
    ]
    for where, model, editor in (*residuals, *config.memory_uses()):
        if not isinstance(config.models[model].editors[editor], HyperNetworkEditorSettings):
            yield f"{where} names the editor {editor!r}, which has no hyper-network; choose another"
    for name, moved in config.tables_of(MovedTable).items():
        for editor in moved.editors:
            known = config.models[moved.model].editors.get(editor) if moved.model in config.models else None
            if known is None or not known.trained:
                yield f"tables.{name} names {editor!r} on {moved.model!r}, which is no trained editor; choose another"
            elif moved.n_edits not in config.all_n_edits(moved.model, editor):
                yield f"tables.{name}.n_edits is {moved.n_edits}, for which no figure or table trains {editor!r}"
    for name, table in config.tables_of(Failures).items():
        if config.models[table.model].task == "fact_checking":
            yield f"tables.{name}.model is {table.model!r} but must be a model that answers questions"


def limits(config: Config) -> Iterator[str]:
    """Yield where a figure would show nothing of an editor, because each of its m is above the editor's ``at_most``."""
    for name, figure in config.curves.items():
        shown = config.curve_n_edits(figure)
        for editor in figure.editors:
            if shown and not config.curve_n_edits(figure, editor):
                most, least = config.models[figure.model].at_most[editor], min(shown)
                yield (
                    f"models.{figure.model}.at_most.{editor} is {most}, but figures.{name} begins at m = {least}; "
                    f"raise it, or take {editor} out of the figure"
                )


def rounds(config: Config) -> Iterator[str]:
    """Yield where a figure or table shows rounds that its model does not have, or nothing of an editor."""
    said: list[str] = []
    for where, name, editor, asked in config.rounds_uses():
        model = config.models[name]
        known = [one.name for one in model.rounds]
        missing = [one for one in asked if one not in known]
        if missing or not asked:
            needed = f"the rounds {missing[0]!r}" if missing else "rounds, but none has its total"
            sentence = f"{where} shows {needed}; models.{name}.rounds has {', '.join(known) or 'none'}"
            if sentence not in said:  # once, not for each editor
                said.append(sentence)
                yield sentence
        elif not {one.name for one in config.rounds(name, editor)} & set(asked):
            yield f"{where} shows nothing of {editor}: models.{name}.at_most or at_most_rounds leaves no rounds of it"
    for name, table in config.tables_of(RoundsTable).items():
        for measure in table.measures:
            if measure not in MEASURES:
                yield unknown(f"tables.{name}.measures", "measure", measure, list(MEASURES))
        keys = [row.variant for row in table.rows]
        for key in dict.fromkeys(keys):
            if key == UNEDITED or keys.count(key) > 1:
                taken = "is that of the unedited model" if key == UNEDITED else "stands in several rows"
                yield f"tables.{name}.rows has the variant {key!r}, which {taken}; choose another"


def sizes(config: Config) -> Iterator[str]:
    """Yield where a split cannot hold a group of edits."""
    prepared = config.to_prepare()
    for name, model in config.models.items():
        try:
            config.data.upstream(model.dataset)
        except ValueError as error:
            yield str(error)
            continue
        held = config.data.at_most(model.dataset, "validation")
        for total in sorted({one.total for editor in config.editors for one in config.rounds(name, editor)}):
            if held is not None and total > held:
                yield (
                    f"models.{name} is to be edited with {total} edits in rounds, but its validation split holds at "
                    f"most {held} tuples; lower n_rounds or n_edits, or raise the split's share"
                )
        for split in ("train", "validation"):
            most = config.data.at_most(model.dataset, split)
            for n_edits in sorted({m for (of, _), sizes in prepared.items() for m in sizes if of == name}):
                if most is not None and n_edits > most:
                    yield (
                        f"models.{name} is to be edited with m = {n_edits}, but its {split} split holds at most {most} "
                        "tuples; lower n_edits or raise the split's share"
                    )
