"""What editing needs of the model as it was: computed where it is needed, or once and for all runs of a grid.

Of an edit, keys and value gradients; of any prompt, the hidden states that come out of the blocks below the edits; of
an unrelated one, the answer logits too. They depend on model, tuples, edited layers and cached tokens alone, not on
the editor's networks, m or seed. :class:`CachedBaseOutputs` keeps them in files, in the model's own precision, so that
they are what the model computed, bit for bit; where more than rounding counts, only padding differs.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from malmen.config.base import BatchSize, Tokens
from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.editing.blocks import Block, FrozenPrefix, hidden_state, place_of
from malmen.editing.capture import KeysAndGradients, at_rows, capture_batch, count_rows, empty_rows
from malmen.editing.editor import HyperNetworkEditor
from malmen.editing.layers import EditedLayer
from malmen.editing.rows import FileRows
from malmen.errors import UserError
from malmen.models.language_model import Batch, Example, LanguageModel
from malmen.runtime.files import write_text

DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16"}
"""Names of precisions in a safetensors file."""


class BaseOutputs(Protocol):
    """Gives what editing needs of the unedited model."""

    def capture(self, editor: HyperNetworkEditor, edits: Sequence[Example]) -> dict[str, KeysAndGradients]:
        """Return keys and value gradients of edits at the editor's layers."""

    def after_prefix(self, batch: Batch) -> AbstractContextManager[None]:
        """Inside the ``with`` block, let the model begin behind the blocks that no edit reaches, if that is known."""

    def before(self, batch: Batch) -> tuple[Tensor, AbstractContextManager[None]]:
        """Return the answer logits of a batch, and how to begin behind the blocks that no edit reaches."""


class LiveBaseOutputs:
    """Computes what is needed when it is needed.

    Args:
        model: the language model, unedited.
        layers: the layers that will be edited.
    """

    def __init__(self, model: LanguageModel, layers: Sequence[EditedLayer]) -> None:
        self.model, self.prefix = model, FrozenPrefix.of(model, layers)

    def capture(self, editor: HyperNetworkEditor, edits: Sequence[Example]) -> dict[str, KeysAndGradients]:
        """Run the edits forward and backward."""
        return editor.capture(self.model, edits)

    def after_prefix(self, _batch: Batch) -> AbstractContextManager[None]:
        """Let the model run as a whole."""
        return nullcontext()

    @torch.no_grad()
    def before(self, batch: Batch) -> tuple[Tensor, AbstractContextManager[None]]:
        """Run the model, and note what comes out of the blocks below the edits."""
        with self.prefix.recording() as states:
            logits = self.model.answer_logits(batch)
        return logits, self.prefix.resuming(states)


@dataclass(frozen=True)
class CacheKey:
    """What a cache is for; it serves nothing else.

    Attributes:
        model: digest of the model's weights, configuration and tokenizer.
        layers: names of the edited layers.
        tokens: which positions are cached of the edits.
    """

    model: str
    layers: list[str]
    tokens: Tokens


class RowIndex(dict[str, slice]):
    """By the digest of an example, its rows in a file."""

    @classmethod
    def of(cls, counts: Iterable[tuple[str, int]]) -> "RowIndex":
        """Put so many rows of each example one after the other."""
        places, start = cls(), 0
        for digest, n in counts:
            places[digest] = slice(start, start + n)
            start += n
        return places

    @property
    def n(self) -> int:
        """Number of rows."""
        return max((rows.stop for rows in self.values()), default=0)


class CachedBaseOutputs:
    """What editing needs of the unedited model, in files; examples are found by their content.

    Args:
        model: the language model, unedited.
        layers: the layers that will be edited.
        tokens: which positions are cached of the edits.
        edits: the edits that are held.
        prompts: all examples whose hidden states are held; none for an encoder-decoder.
    """

    def __init__(
        self,
        model: LanguageModel,
        layers: Sequence[EditedLayer],
        tokens: Tokens,
        edits: Sequence[Example],
        prompts: Sequence[Example],
    ) -> None:
        self.model, self.layers, self.tokens = model, layers, tokens
        self.prefix, self.last_block = FrozenPrefix.of(model, layers), last_block(model, layers)
        self.edits = {digest(example): example for example in edits}
        self.prompts = {digest(example): example for example in prompts if self.last_block}
        self.rows = {
            layer.name: RowIndex.of((key, count_rows(model, layer, [edit], tokens)) for key, edit in self.edits.items())
            for layer in layers
        }
        self.states = RowIndex.of((key, len(prompt.tokens)) for key, prompt in self.prompts.items() if self.prefix.last)
        self.answers = RowIndex.of((key, len(prompt.targets)) for key, prompt in self.prompts.items())
        self.files: dict[str, FileRows] = {}
        self.forms: list[Any] = []

    @classmethod
    def of_tuples(
        cls, model: LanguageModel, layers: Sequence[EditedLayer], tokens: Tokens, tuples: Sequence[EditTuple]
    ) -> "CachedBaseOutputs":
        """Return what is to be cached of tuples, none of it computed yet."""
        edits = model.encode([item.edit for item in tuples])
        equivalent = [PromptAnswer(prompt, item.edit.answer) for item in tuples for prompt in item.equivalent]
        others = model.encode([*equivalent, *(item.unrelated for item in tuples)])
        return cls(model, layers, tokens, edits, [*edits, *others])

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Return by file name how many rows of which width it holds."""
        shapes: dict[str, tuple[int, int]] = {}
        for number, layer in enumerate(self.layers):
            n = self.rows[layer.name].n
            shapes |= {f"keys_{number}": (n, layer.shape[0]), f"gradients_{number}": (n, layer.shape[1])}
        width = int(self.model.module.config.hidden_size)
        return shapes | {"states": (self.states.n, width), "answers": (self.answers.n, width)}

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return sum(n * width for n, width in self.shapes().values()) * self.model.module.dtype.itemsize

    def write(self, folder: Path, contents: CacheKey, batch_size: BatchSize) -> None:
        """Compute everything into files of a folder."""
        for name, (n, width) in self.shapes().items():
            self.files[name] = create(folder / f"{name}.safetensors", n, width, self.model.module.dtype)
        edits = [replace(edit, weight=1.0) for edit in self.edits.values()]
        for _ in self.model.in_batches("cache of edits", edits, batch_size, self.write_edits):
            pass
        if self.prompts:
            prompts = list(self.prompts.values())
            for _ in self.model.in_batches("cache of prompts", prompts, batch_size, self.write_prompts):
                pass
        held = [
            [asdict(replace(example, source=None)) for example in kind.values()] for kind in (self.edits, self.prompts)
        ]
        write_text(
            folder / "index.json", json.dumps({"contents": asdict(contents), "edits": held[0], "prompts": held[1]})
        )

    def write_edits(self, batch: Batch) -> None:
        """Write keys and value gradients of edits of weight 1."""
        captured = capture_batch(self.model, self.layers, batch, self.tokens)
        for number, layer in enumerate(self.layers):
            for name, matrix in zip(("keys", "gradients"), captured[layer.name], strict=True):
                put(self.files[f"{name}_{number}"], self.rows[layer.name], batch.members, matrix)

    @torch.no_grad()
    def write_prompts(self, batch: Batch) -> None:
        """Write the hidden states below the edits, and behind the last block where an answer is."""
        assert self.last_block
        with self.prefix.recording() as below, self.last_block.recording() as last:
            self.model.answer_logits(batch)
        put(self.files["answers"], self.answers, batch.members, at_rows(hidden_state(last[0]), batch.answer_rows))
        if self.prefix.last:
            put(
                self.files["states"], self.states, batch.members, at_rows(hidden_state(below[0]), batch.attended_rows())
            )

    @classmethod
    def open(
        cls, folder: Path, model: LanguageModel, layers: Sequence[EditedLayer], contents: CacheKey
    ) -> "CachedBaseOutputs":
        """Open what :meth:`write` wrote.

        Raises:
            UserError: if it was written for something else, or is broken.
        """
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            held = [[read_example(raw) for raw in index[kind]] for kind in ("edits", "prompts")]
            cache = cls(model, layers, contents.tokens, *held)
            for name, (n, width) in cache.shapes().items():
                cache.files[name] = reopen(folder / f"{name}.safetensors", n, width, model.module.dtype, model.device)
        except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
            raise UserError(f"{folder} cannot be read as a cache ({type(error).__name__}); remove it.") from None
        if index["contents"] != asdict(contents):
            raise UserError(f"{folder} was made for another model, other layers or tokens; remove it.")
        return cache

    def capture(self, editor: HyperNetworkEditor, edits: Sequence[Example]) -> dict[str, KeysAndGradients]:
        """Read keys and value gradients, these times the weight that each edit has in its group.

        Raises:
            DivergedError: if one of them is not finite.
        """
        captured = empty_rows(self.model, self.layers, edits, self.tokens, editor.settings.rows_bytes, editor.device)
        for number, layer in enumerate(self.layers):
            start, rows = 0, captured[layer.name]
            for edit in edits:
                place = self.rows[layer.name][digest(edit)]
                keys = self.files[f"keys_{number}"][place].to(rows.keys.dtype)
                gradients = self.files[f"gradients_{number}"][place].to(rows.keys.dtype)
                start = rows.write(start, keys, edit.weight * gradients, layer.name)
        return captured

    @contextmanager
    def after_prefix(self, batch: Batch) -> Iterator[None]:
        """Inside the ``with`` block, let the model begin with the hidden states that are held."""
        if self.prefix.last is None or not self.prompts:
            yield
            return
        state = self.padded(batch, "states", self.states, batch.attended_rows())
        with self.prefix.last.resuming(self.form(), lambda: state):
            yield

    @torch.no_grad()
    def before(self, batch: Batch) -> tuple[Tensor, AbstractContextManager[None]]:
        """Return the answer logits, from the hidden states behind the last block, and how to begin behind the trunk."""
        if self.last_block is None:
            return self.model.answer_logits(batch), nullcontext()
        state = self.padded(batch, "answers", self.answers, batch.answer_rows)
        with self.last_block.resuming(self.form(), lambda: state):
            return self.model.answer_logits(batch), self.after_prefix(batch)

    def padded(self, batch: Batch, name: str, places: RowIndex, rows: Tensor) -> Tensor:
        """Return hidden states as a batch has them, (B, T, d), with 0 wherever nothing is held."""
        held = torch.cat([self.files[name][places[digest(example)]] for example in batch.members])
        b, t = batch.inputs["input_ids"].shape
        state = held.new_zeros(b * t, held.shape[1])
        state[rows] = held
        return state.view(b, t, -1)

    def form(self) -> Any:
        """Return what a block returns, for its form alone."""
        if not self.forms:
            assert self.last_block
            with torch.no_grad(), self.last_block.recording() as self.forms:
                self.model.answer_logits(self.model.collate([next(iter(self.prompts.values()))], [0]))
        return self.forms[0]


def last_block(model: LanguageModel, layers: Sequence[EditedLayer]) -> Block | None:
    """Return the last block of a model of one stack; None if there are two, or it is not known."""
    place = place_of(layers[0].name)
    return None if model.two_stacks or place is None else Block.at(model.module, place[0], -1)


def digest(example: Example) -> str:
    """Return what an example is found by: its content without its weight."""
    content = (example.tokens, example.answer_positions, example.targets, example.decoder_tokens)
    return hashlib.sha256(repr(content).encode()).hexdigest()[:32]


def read_example(raw: Mapping[str, Any]) -> Example:
    """Read an example of an index."""
    tokens, positions, targets = (tuple(raw[name]) for name in ("tokens", "answer_positions", "targets"))
    return Example(tokens, positions, targets, decoder_tokens=tuple(raw["decoder_tokens"]))


def put(file: FileRows, places: RowIndex, members: Sequence[Example], rows: Tensor) -> None:
    """Write the rows of a batch, which holds its examples one after the other."""
    start = 0
    for example in members:
        place = places[digest(example)]
        file[place] = rows[start : start + place.stop - place.start]
        start += place.stop - place.start


def header(n: int, width: int, dtype: torch.dtype) -> bytes:
    """Return the beginning of a safetensors file of one matrix."""
    about = {"rows": {"dtype": DTYPES[dtype], "shape": [n, width], "data_offsets": [0, n * width * dtype.itemsize]}}
    text = json.dumps(about).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def create(path: Path, n: int, width: int, dtype: torch.dtype) -> FileRows:
    """Make a safetensors file of one matrix, which is then written by slices."""
    beginning = header(n, width, dtype)
    with path.open("xb") as file:
        file.write(beginning)
        file.truncate(len(beginning) + n * width * dtype.itemsize)
    return FileRows(n, width, dtype, torch.device("cpu"), path.open("r+b", buffering=0), len(beginning))


def reopen(path: Path, n: int, width: int, dtype: torch.dtype, device: torch.device) -> FileRows:
    """Open what :func:`create` made, to be read by slices.

    Raises:
        ValueError: if it holds another matrix.
    """
    beginning = header(n, width, dtype)
    file = path.open("rb", buffering=0)
    if file.read(len(beginning)) != beginning or path.stat().st_size != len(beginning) + n * width * dtype.itemsize:
        file.close()
        raise ValueError(f"{path.name} holds another matrix")
    return FileRows(n, width, dtype, device, file, len(beginning))
