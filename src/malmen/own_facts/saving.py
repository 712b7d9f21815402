"""Writing an edited model: the files of the unedited one, in which only the edited tensors differ."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from malmen.editing.layers import PostEditWeights
from malmen.errors import UserError
from malmen.models.hub import CARD, SURROUNDINGS, TERMS
from malmen.models.identity import HALF, stored_precision
from malmen.own_facts.card import model_card
from malmen.own_facts.delta import FILE, Header, StoredTensor, write_changed, write_delta
from malmen.own_facts.edited import EditedModel
from malmen.own_facts.model import LoadedModel
from malmen.own_facts.rebuilding import Turned, turn_back
from malmen.own_facts.stored import STORED, Bytes, Place, bytes_of, places_in, places_of
from malmen.runtime.files import sha256, write_json, write_text
from malmen.runtime.model_files import SOURCE, TEMPLATES, main_and_index, weights_files
from malmen.runtime.progress import logger

REPORTS = ("report.html", "report.json", "report.md")
"""Files that an edit writes beside the model."""
REPLACED = (SOURCE, *REPORTS, CARD, FILE)
"""Files that say something about the unedited weights; the edited model has others, or none."""


def write_edited(edited: EditedModel, folder: Path, delta_only: bool = False) -> None:
    """Write the edited model into a folder, with its report, its card and the delta that undoes the edit.

    Files are copied, and the bytes of edited tensors replaced in their stored precision, so that all else stays as it
    was: other tensors and their precision, parts, configuration, generation settings, tokenizer and chat template. No
    file is in memory as a whole; of the edited tensors alone, a few copies are.
    Where a file does not have an edited tensor as the model has it, because transformers joins or converts tensors when
    it loads them, or the model was loaded in another precision (always so with float16), transformers writes all.

    Args:
        edited: the edited model.
        folder: an empty folder.
        delta_only: whether to write only the delta and the report.

    Raises:
        UserError: if only a delta is wanted, and transformers has to write all.
    """
    model, weights, report = edited.model, edited.weights, edited.report
    source = model.source.directory
    files = weights_files(source)
    places = places_of_edited(model, weights, files)
    if places is None and delta_only:
        raise UserError(
            f"The edited weights are not stored in {source} as the model uses them, so no delta fits its files; leave "
            "out --delta-only (in Python, delta_only=True) to save the whole model."
        )
    if places is None and stored_precision(source) != HALF:  # With float16, loading has said so.
        logger.warning(
            "The edited weights are not stored in %s as the model uses them, so all weights are written again.", source
        )
    report.write(folder)
    if places is None:
        write_all(model, weights, folder)
        copy_surroundings(source, folder, as_stored=False)
        turned = turn_back(files, weights_files(folder))
    else:
        turned = change_in_place(files, places, None if delta_only else folder)
        if not delta_only:
            copy_surroundings(source, folder, as_stored=True)
    card = model_card(report, [layer.name for layer in weights.layers], source, undoable=turned is not None)
    if not delta_only:
        write_text(folder / CARD, card)
    if turned is None:
        logger.warning(
            "transformers stores the weights so differently from %s that the edit cannot be undone without it.", source
        )
        return
    names = surroundings_of(source, as_stored=True)
    copied = {name: sha256(source / name) for name in names}
    if not delta_only:
        copied = {name: digest for name, digest in copied.items() if holds(folder / name, digest)}
    before = [name for name in [*names, *REPLACED] if name not in copied and (source / name).is_file()]
    after = [] if turned.rebuilt else [*REPORTS, CARD]
    header = Header(
        model=report.model,
        revision=report.revision,
        dtype=model.source.dtype,
        editor=report.editor,
        weights_before={file.name: sha256(file) for file in files},
        weights_after=turned.digests,
        tensors=turned.tensors,
        rebuilt=turned.rebuilt,
        copied=copied,
        before=before,
        after=after,
    )
    entries = turned.entries | {f"before/{name}": content_of(source / name) for name in before}
    entries |= {f"after/{name}": content_of(folder / name) for name in after if name != CARD}
    entries[f"after/{CARD}"] = np.frombuffer(bytearray(card.encode()), np.uint8)
    write_delta(folder / FILE, header, entries, edited.shifts)


def holds(file: Path, digest: str) -> bool:
    """Return whether a file is there and has this digest."""
    return file.is_file() and sha256(file) == digest


def content_of(file: Path) -> Bytes:
    """Return the bytes of a file."""
    return np.fromfile(file, np.uint8)


def change_in_place(files: Sequence[Path], places: Sequence[tuple[Place, str, Tensor]], folder: Path | None) -> Turned:
    """Write files of weights in which only the edited tensors differ, and return what changed.

    Args:
        files: the unedited files.
        places: where each edited tensor is stored, its layer and its new value.
        folder: where to write; None if only the change is wanted.
    """
    changes: dict[Path, dict[int, Bytes]] = {file: {} for file in files}
    turned = Turned({}, [], {}, {})
    for place, layer, tensor in places:
        changed = np.bitwise_xor(place.bytes(), bytes_of(tensor.to(place.dtype)))
        changes[place.file][place.start] = changed
        turned.tensors.append(StoredTensor(file=place.file.name, name=place.name, layer=layer))
        turned.entries[turned.tensors[-1].key] = changed
    for file in files:
        target = folder / file.name if folder else None
        if changes[file]:
            turned.digests[file.name] = write_changed(file, changes[file], target)
        else:
            turned.digests[file.name] = sha256(file)
            if target:
                shutil.copyfile(file, target)
    return turned


def places_of_edited(
    model: LoadedModel, weights: PostEditWeights, files: Sequence[Path]
) -> list[tuple[Place, str, Tensor]] | None:
    """Return where each edited tensor is stored, its layer and its new value; None if one cannot be stored so."""
    if getattr(torch, model.source.dtype) != STORED.get(stored_precision(model.source.directory)):
        return None
    stored = {place: shape for file in files for place, shape in places_in(file)}
    found: list[tuple[Place, str, Tensor]] = []
    for layer, edited in zip(weights.layers, weights.edited, strict=True):
        alike = [place for place, shape in stored.items() if shape == layer.weight.shape]
        places = places_of(f"{layer.name}.weight", layer.weight.data, alike)
        if not places or any(not torch.equal(edited.to(place.dtype).to(edited.dtype), edited) for place in places):
            return None
        found += [(place, layer.name, edited) for place in places]
    return found


def write_all(model: LoadedModel, weights: PostEditWeights, folder: Path) -> None:
    """Let transformers write all edited weights and the tokenizer."""
    module = model.module
    generation = getattr(module, "generation_config", None)
    try:
        # transformers refuses to write generation settings that contradict each other; they are copied instead.
        if generation is not None:
            module.generation_config = GenerationConfig()
        with weights.applied():
            module.save_pretrained(folder)
    finally:
        if generation is not None:
            module.generation_config = generation
    model.tokenizer.save_pretrained(folder)


def copy_surroundings(source: Path, folder: Path, as_stored: bool) -> None:
    """Copy configuration, tokenizer, generation settings and chat templates.

    Args:
        source: the unedited model.
        folder: the edited model.
        as_stored: whether the weights lie in files as in the source; then the index that names them is copied, too.
    """
    copy(surroundings_of(source, as_stored), source, folder)
    if not as_stored:
        written = folder / "config.json"
        new, old = (json.loads(path.read_text(encoding="utf-8")) for path in (written, source / "config.json"))
        # Old configurations hold generation settings, which transformers leaves out, and name the precision otherwise.
        write_json(written, {key: value for key, value in old.items() if key != "torch_dtype"} | new)


def surroundings_of(source: Path, as_stored: bool) -> list[str]:
    """Return the names of a model's files, besides its weights, that are copied; see :func:`copy_surroundings`."""
    main, index = main_and_index(source)
    names = []
    for file in sorted({file for pattern in [*SURROUNDINGS, *TERMS] for file in source.glob(pattern)}):
        if file.name.endswith(".index.json"):
            wanted = as_stored and file == index and not main.is_file()
        else:
            wanted = file.is_file() and file.name not in REPLACED and (as_stored or file.name != "config.json")
        if wanted:
            names.append(file.name)
    return names + [f"{TEMPLATES}/{file.name}" for file in sorted((source / TEMPLATES).glob("*")) if file.is_file()]


def copy(names: Iterable[str], source: Path, folder: Path) -> None:
    """Copy files by name from one folder into another."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, folder / name)
