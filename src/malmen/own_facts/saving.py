"""Writing an edited model: the files of the unedited one, in which only the edited tensors differ."""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
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
from malmen.own_facts.delta import (
    FILE,
    Bytes,
    Digests,
    Header,
    StoredTensor,
    keys_of_files,
    spans,
    write_changed,
    write_delta,
)
from malmen.own_facts.edited import EditedModel
from malmen.own_facts.model import LoadedModel
from malmen.runtime.files import sha256, write_json, write_text
from malmen.runtime.model_files import SOURCE, TEMPLATES, main_and_index, tensors_in, weights_files
from malmen.runtime.progress import logger

STORED = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""The precisions of tensors, by their names in safetensors."""
REPORTS = ("report.json", "report.md")
"""Files that an edit writes beside the model."""
REPLACED = (SOURCE, *REPORTS, CARD, FILE)
"""Files that say something about the unedited weights; the edited model has others, or none."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies.

    Attributes:
        file: its safetensors file.
        name: its name there.
        dtype: its precision.
        start: its first byte.
        length: its size in bytes.
    """

    file: Path
    name: str
    dtype: torch.dtype
    start: int
    length: int

    def read(self, shape: torch.Size) -> Tensor:
        """Return the tensor in this shape."""
        return torch.from_numpy(self.bytes()).view(self.dtype).reshape(shape)

    def bytes(self) -> Bytes:
        """Return the tensor's bytes."""
        return np.fromfile(self.file, np.uint8, self.length, offset=self.start)


def write_edited(edited: EditedModel, folder: Path, delta_only: bool = False) -> None:
    """Write the edited model into a folder, with its report, its card and the delta that undoes the edit.

    Files are copied, and the bytes of edited tensors replaced in their stored precision, so that all else stays as it
    was: other tensors and their precision, parts, configuration, generation settings, tokenizer and chat template. No
    file is in memory as a whole; of the edited tensors alone, a few copies are.
    Where a file does not have an edited tensor as the model has it, because transformers joins or converts tensors when
    it loads them, or the model was loaded in another precision (always so with float16), transformers writes all, and
    there is no delta.

    Args:
        edited: the edited model.
        folder: an empty folder.
        delta_only: whether to write only the delta and the report.

    Raises:
        UserError: if only a delta is wanted and there can be none.
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
    report.write(folder)
    layers = [layer.name for layer in weights.layers]
    card = model_card(report, layers, source, undoable=places is not None)
    if places is None:
        if stored_precision(source) != HALF:  # With float16, loading has said so.
            logger.warning(
                "The edited weights are not stored in %s as the model uses them, so all weights are written again, and "
                "the edit cannot be undone without the unedited model.",
                source,
            )
        write_all(model, weights, folder)
        copy_surroundings(source, folder, as_stored=False)
        write_text(folder / CARD, card)
        return
    changes: dict[Path, dict[int, Bytes]] = {file: {} for file in files}
    stored: list[tuple[StoredTensor, Bytes]] = []
    for place, layer, tensor in places:
        changed = np.bitwise_xor(place.bytes(), bytes_of(tensor.to(place.dtype)))
        changes[place.file][place.start] = changed
        stored.append((StoredTensor(file=place.file.name, name=place.name, layer=layer), changed))
    digests = {}
    for file in files:
        target = None if delta_only else folder / file.name
        before = after = sha256(file)
        if changes[file]:
            after = write_changed(file, changes[file], target)
        elif target:
            shutil.copyfile(file, target)
        digests[file.name] = Digests(before=before, after=after)
    surroundings = surroundings_of(source, as_stored=True)
    if not delta_only:
        copy(surroundings, source, folder)
        write_text(folder / CARD, card)
    only_before = {name: (source / name).read_bytes() for name in REPLACED if (source / name).is_file()}
    only_after = {name: (folder / name).read_bytes() for name in REPORTS} | {CARD: card.encode()}
    header = Header(
        model=report.model,
        revision=report.revision,
        dtype=model.source.dtype,
        editor=report.editor,
        weights=digests,
        tensors=[tensor for tensor, _ in stored],
        copied={name: sha256(source / name) for name in surroundings},
        before=list(only_before),
        after=list(only_after),
    )
    kept = dict(zip(keys_of_files(header), [*only_before.values(), *only_after.values()], strict=True))
    write_delta(folder / FILE, header, {t.key: changed for t, changed in stored}, edited.shifts, kept)


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


def places_in(file: Path) -> list[tuple[Place, torch.Size]]:
    """Return where the tensors of a safetensors file lie, with their shapes."""
    about = tensors_in(file)
    return [
        (Place(file, name, STORED[about[name]["dtype"]], start, length), torch.Size(about[name]["shape"]))
        for name, start, length in spans(file)
        if about[name]["dtype"] in STORED
    ]


def places_of(name: str, unedited: Tensor, places: Sequence[Place]) -> list[Place]:
    """Return the places of a tensor with these values, whose names there end most like its name in the model.

    transformers may put a prefix before names, or leave it out. Several parts of a model may hold one tensor; which of
    them transformers reads is for it to say, so all are places of the tensor. Empty if no two parts of the name agree.
    """

    def likeness(place: Place) -> tuple[bool, int]:
        return place.name == name, in_common(place.name, name)

    ranked = sorted(places, key=likeness, reverse=True)
    for alike, group in groupby(ranked, likeness):
        if alike < (False, 2):
            return []
        if found := [p for p in group if torch.equal(p.read(unedited.shape).to(unedited.dtype), unedited.cpu())]:
            return found
    return []


def in_common(first: str, second: str) -> int:
    """Return how many parts at the end of two names are the same."""
    pairs = zip(reversed(first.split(".")), reversed(second.split(".")), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(first.count("."), second.count(".")) + 1)


def bytes_of(tensor: Tensor) -> Bytes:
    """Return the bytes of a tensor as safetensors stores them."""
    found: Bytes = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
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
