"""The covariance C = E[k k^T] of the keys of edited layers on ordinary text, which MEMIT disturbs as little as it can.

MEMIT's authors call it covariance, although the mean key is not subtracted.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from malmen.config.memit import LONGEST_TEXT
from malmen.editing.capture import Positions, recording
from malmen.editing.layers import EditedLayer
from malmen.errors import UserError
from malmen.models.encoding import encode_text
from malmen.models.language_model import Example, LanguageModel
from malmen.runtime.files import replacing
from malmen.runtime.ranks import ranks

HEADER = "malmen_key_covariance"


@torch.no_grad()
def collect_key_covariance(
    model: LanguageModel, layers: Sequence[EditedLayer], sequences: Iterable[Example], batch_size: int
) -> tuple[dict[str, Tensor], int]:
    """Return E[k k^T] of each layer over all tokens of all sequences, by name, (d_in, d_in), and the number of tokens.

    The products within a batch are summed in the keys' precision (float32 at least), which is fast, and the batches in
    float64: in float32, a sum over millions of tokens would lose the digits of a single batch. Each rank takes every
    R-th batch.

    Raises:
        UserError: if a key is not finite.
    """
    sums = {layer.name: torch.zeros(layer.shape[0], layer.shape[0], dtype=torch.float64) for layer in layers}
    own_tokens, left, here = 0, iter(sequences), ranks()
    parts = iter(lambda: list(islice(left, batch_size)), [])
    with here.together():
        for part in islice(parts, here.rank, None, here.size):
            batch = model.collate(part, range(len(part)))
            rows = batch.attended_rows()
            with recording(layers) as seen:
                model.module.base_model(**batch.inputs, use_cache=False)
            for layer in layers:
                keys = Positions.all(layer.name, batch).at_rows(seen[layer.name][0], rows)  # (n, d_in)
                sums[layer.name] += (keys.T @ keys).cpu()  # (d_in, d_in)
            own_tokens += len(rows)
    n_tokens = int(here.sum_numbers(own_tokens)[0])
    for name, total in sums.items():
        if not here.sum(total).isfinite().all():
            raise UserError(f"The keys of layer {name} are not finite on this text; check the model's weights.")
    return {name: total / max(1, n_tokens) for name, total in sums.items()}, n_tokens


def encode_texts(model: LanguageModel, texts: Iterable[str], max_tokens: int) -> Iterator[Example]:
    """Encode texts until there are ``max_tokens`` tokens.

    A text that is longer than the model reads, or than :data:`malmen.config.memit.LONGEST_TEXT`, becomes several, of
    which each begins with the special tokens that the tokenizer puts before a text.
    """
    left, longest = max_tokens, min(LONGEST_TEXT, model.limit.tokens if model.limit else LONGEST_TEXT)
    for text in texts:
        encoded = encode_text(model.tokenizer, text)
        size = longest - len(encoded.before)
        for start in range(0, len(encoded.own), size):
            tokens = (*encoded.before, *encoded.own[start : start + size])[:left]
            yield Example(tokens, (), ())
            left -= len(tokens)
            if not left:
                return


def write_key_covariance(path: Path, covariance: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write each layer's covariance, (d_in, d_in), in float32 as one safetensors file with ``about`` in its header.

    Rounding changes each entry by less than 1e-7 of itself, far less than another sample of text would.
    """
    tensors = {name: matrix.float().contiguous() for name, matrix in covariance.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={HEADER: json.dumps(about, sort_keys=True)})


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return the ``about`` of a file of keys' covariance, and by layer the shape of its matrix, [d_in, d_in].

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[HEADER])
            return about, {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = type(error).__name__
        raise UserError(f"{path} cannot be read as a covariance of keys ({reason}); collect it again.") from None


@dataclass(frozen=True)
class CollectedFrom:
    """What a covariance of keys was collected from.

    Attributes:
        model: name of the model.
        weights: digest of its weights (:func:`malmen.models.identity.weights_digest`).
        tokens: number of tokens of text.
        source: where the text comes from.
    """

    model: str
    weights: str
    tokens: int
    source: str

    @classmethod
    def read(cls, path: Path) -> "CollectedFrom":
        """Read it from the covariance's file, without the model.

        Raises:
            UserError: if the file cannot be read, or does not say what it was collected from.
        """
        try:
            return cls(**read_header(path)[0])
        except TypeError:
            raise UserError(f"{path} does not say which model it was collected from; collect it again.") from None


@dataclass(frozen=True)
class KeyCovariance(Mapping[str, Tensor]):
    """A file of keys' covariance: each layer's matrix C, (d_in, d_in), is read when it is asked for, to save memory.

    Attributes:
        path: the file.
        layers: the layers it is asked for.
        about: what it was collected from, as its header says it.
    """

    path: Path
    layers: tuple[str, ...]
    about: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path, layers: Sequence[EditedLayer]) -> "KeyCovariance":
        """Open a file for the given layers.

        Raises:
            UserError: if the file cannot be read, or was not collected from these layers.
        """
        about, shapes = read_header(path)
        for layer in layers:
            if shapes.get(layer.name) != [layer.shape[0]] * 2:
                raise UserError(
                    f"{path} does not hold the covariance of layer {layer.name} with keys of size {layer.shape[0]}; "
                    "collect it from this model and these layers."
                )
        return cls(path, tuple(layer.name for layer in layers), about)

    def __getitem__(self, layer: str) -> Tensor:
        if layer not in self.layers:
            raise KeyError(layer)
        with safe_open(self.path, framework="pt") as file:
            matrix: Tensor = file.get_tensor(layer)
        return matrix.clone()  # the file is mapped into memory, at places that can change how products are rounded

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)
