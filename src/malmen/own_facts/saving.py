"""Writing an edited model: the files of the unedited one, in which only the edited tensors differ."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig

from malmen.editing.layers import PostEditWeights
from malmen.models.hub import SURROUNDINGS
from malmen.models.identity import HALF, stored_precision
from malmen.own_facts.model import LoadedModel
from malmen.runtime.files import write_json
from malmen.runtime.model_files import SOURCE, TEMPLATES, main_and_index, tensors_in, weights_files
from malmen.runtime.progress import logger

STORED = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""The precisions of tensors, by their names in safetensors."""
NOT_COPIED = (SOURCE, "report.json", "report.md")
"""Files that say something about the unedited weights."""


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
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            return torch.frombuffer(bytearray(stream.read(self.length)), dtype=self.dtype).reshape(shape)


def write_edited(model: LoadedModel, weights: PostEditWeights, folder: Path) -> None:
    """Write the edited model into a folder.

    Files are copied, and the bytes of edited tensors replaced in their stored precision, so that all else stays as it
    was: other tensors and their precision, parts, configuration, generation settings, tokenizer and chat template.
    Where a file does not have an edited tensor as the model has it, because transformers joins or converts tensors when
    it loads them, or the model was loaded in another precision (always so with float16), transformers writes all.
    """
    source = model.source.directory
    files = weights_files(source)
    edited = places_of_edited(model, weights, files)
    if edited is None:
        if stored_precision(source) != HALF:  # With float16, loading has said so.
            logger.warning(
                "The edited weights are not stored in %s as the model uses them, so all weights are written again.",
                source,
            )
        write_all(model, weights, folder)
    else:
        for file in files:
            shutil.copyfile(file, folder / file.name)
            with (folder / file.name).open("r+b") as stream:
                for place, tensor in edited:
                    if place.file == file:
                        stream.seek(place.start)
                        stream.write(bytes_of(tensor.to(place.dtype)))
    copy_surroundings(source, folder, as_stored=edited is not None)


def places_of_edited(
    model: LoadedModel, weights: PostEditWeights, files: Sequence[Path]
) -> list[tuple[Place, Tensor]] | None:
    """Return where each edited tensor is stored, and its new value; None if one cannot be stored in its place."""
    if getattr(torch, model.source.dtype) != STORED.get(stored_precision(model.source.directory)):
        return None
    stored = {place: shape for file in files for place, shape in places_in(file)}
    found: list[tuple[Place, Tensor]] = []
    for layer, edited in zip(weights.layers, weights.edited, strict=True):
        alike = [place for place, shape in stored.items() if shape == layer.weight.shape]
        places = places_of(f"{layer.name}.weight", layer.weight.data, alike)
        if not places or any(not torch.equal(edited.to(place.dtype).to(edited.dtype), edited) for place in places):
            return None
        found += [(place, edited) for place in places]
    return found


def places_in(file: Path) -> list[tuple[Place, torch.Size]]:
    """Return where the tensors of a safetensors file lie, with their shapes."""
    with file.open("rb") as stream:
        begin = 8 + int.from_bytes(stream.read(8), "little")
    return [
        (Place(file, name, STORED[about["dtype"]], begin + start, end - start), torch.Size(about["shape"]))
        for name, about in tensors_in(file).items()
        if about["dtype"] in STORED
        for start, end in [about["data_offsets"]]
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


def bytes_of(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor as safetensors stores them."""
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


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
    main, index = main_and_index(source)
    for file in sorted({file for pattern in SURROUNDINGS for file in source.glob(pattern)}):
        if file.name.endswith(".index.json"):
            wanted = as_stored and file == index and not main.is_file()
        else:
            wanted = file.is_file() and file.name not in NOT_COPIED and (as_stored or file.name != "config.json")
        if wanted:
            shutil.copyfile(file, folder / file.name)
    if (source / TEMPLATES).is_dir():
        shutil.copytree(source / TEMPLATES, folder / TEMPLATES, dirs_exist_ok=True)
    if not as_stored:
        written = folder / "config.json"
        new, old = (json.loads(path.read_text(encoding="utf-8")) for path in (written, source / "config.json"))
        # Old configurations hold generation settings, which transformers leaves out, and name the precision otherwise.
        write_json(written, {key: value for key, value in old.items() if key != "torch_dtype"} | new)
