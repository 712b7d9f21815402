"""Outputs of the unedited model that editing needs: computed when asked for, or cached once for all runs of a grid.

These are: the keys and value gradients of edits; the hidden states of any prompt after the frozen prefix, that is, the
blocks before the first edited one; and the answer logits of unrelated prompts. They depend on model, tuples, edited
layers and cached tokens alone, not on the editor's networks, m or seed. :class:`CachedBaseOutputs` keeps them in files
in the model's own precision, so that they are what the model computed, bit for bit; a step differs from a live one
only by rounding, since sequences are padded to other lengths; a long training amplifies that.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from malmen.config.base import BatchSize, Tokens
from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.editing.blocks import Block, FrozenPrefix, padded, stack_and_number, state_width, states_after
from malmen.editing.capture import KeysAndGradients, capture, capture_batch, count_rows, empty_rows
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.rows import FileRows
from malmen.errors import UserError
from malmen.models.language_model import Batch, Example, LanguageModel, shared
from malmen.runtime.files import write_text
from malmen.runtime.ranks import ranks


class BaseOutputs(Protocol):
    """Gives the outputs of the unedited model that editing needs."""

    def capture(self, editor: HyperNetworkEditor, edits: Sequence[Example]) -> dict[str, KeysAndGradients]:
        """Return by layer the keys, (n, d_in), and value gradients, (n, d_out), of this rank's share of the edits."""

    def after_prefix(self, batch: Batch) -> AbstractContextManager[None]:
        """Inside the ``with`` block, let the model start after the frozen prefix, if its output is known."""

    def before(self, batch: Batch) -> tuple[Tensor, AbstractContextManager[None]]:
        """Return the pre-edit answer logits of a batch, (R, C), and how to let the model start after the prefix."""


class LiveBaseOutputs:
    """Computes each output when it is asked for.

    Args:
        model: the language model, unedited.
        layers: the layers that will be edited. Without them there is no frozen prefix, and every run is a whole one.
    """

    def __init__(self, model: LanguageModel, layers: Sequence[EditedLayer] = ()) -> None:
        self.model, self.prefix = model, FrozenPrefix.of(model, layers)

    def capture(self, editor: HyperNetworkEditor, edits: Sequence[Example]) -> dict[str, KeysAndGradients]:
        """Run the edits forward and backward; return by layer their keys, (n, d_in), and gradients, (n, d_out)."""
        return capture(self.model, editor.layers, edits, editor.settings, editor.device)

    def after_prefix(self, _batch: Batch) -> AbstractContextManager[None]:
        """Let the model run as a whole."""
        return nullcontext()

    @torch.no_grad()
    def before(self, batch: Batch) -> tuple[Tensor, AbstractContextManager[None]]:
        """Run the model and record what the prefix outputs; return the answer logits, (R, C)."""
        with self.prefix.recording() as states:
            logits = self.model.answer_logits(batch)
        return logits, self.prefix.resuming(states)


@dataclass(frozen=True)
class CacheKey:
    """What a cache was made for; it is of no use for anything else.

    Attributes:
        model: digest of the model's weights, configuration and tokenizer.
        layers: names of the edited layers.
        tokens: which positions of the edits are cached.
    """

    model: str
    layers: list[str]
    tokens: Tokens


class RowIndex(dict[str, slice]):
    """The rows of each example in a file, by the example's digest."""

    @classmethod
    def of(cls, counts: Iterable[tuple[str, int]]) -> "RowIndex":
        """Place each example's rows, of which the count is given, one after the other."""
        index, start = cls(), 0
        for digest, n in counts:
            index[digest] = slice(start, start + n)
            start += n
        return index

    def place(self, example: Example) -> slice:
        """Return the rows of an example.

        Raises:
            UserError: if it is not cached: a run takes more tuples than the configuration told when the cache was made.
        """
        try:
            return self[digest(example)]
        except KeyError:
            raise UserError(
                "The cache lacks a tuple that this run takes; add its m to n_edits of the model in the configuration, "
                "which makes a larger cache."
            ) from None

    @property
    def n(self) -> int:
        """The number of rows of the file."""
        return max((rows.stop for rows in self.values()), default=0)


class CachedBaseOutputs:
    """Outputs of the unedited model in files of raw rows; examples are found by their content.

    Args:
        model: the language model, unedited.
        layers: the layers that will be edited.
        tokens: which positions of the edits are cached.
        edits: the cached edits.
        prompts: all examples whose hidden states are cached; for an encoder-decoder none are.
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
        self.prefix, place = FrozenPrefix.of(model, layers), stack_and_number(layers[0].name)
        self.last_block: Block | None = None  # none if there are two stacks, or the model cannot start there
        if place and not model.two_stacks:
            last = Block.at(model, place[0], -1)
            self.last_block = last if last.skips else None
        ends = self.prefix.last, self.last_block
        self.widths = [state_width(model, block) if block else 0 for block in ends]
        self.edits = {digest(example): example for example in edits}
        self.prompts = {digest(example): example for example in prompts if self.last_block}
        self.rows = {
            layer.name: RowIndex.of((key, count_rows(model, layer, [edit], tokens)) for key, edit in self.edits.items())
            for layer in layers
        }
        self.states = RowIndex.of((key, len(prompt.tokens)) for key, prompt in self.prompts.items() if self.prefix.last)
        self.answers = RowIndex.of((key, len(prompt.targets)) for key, prompt in self.prompts.items())
        self.files: dict[str, FileRows] = {}
        self.block_outputs: list[Any] = []

    @classmethod
    def of_tuples(
        cls, model: LanguageModel, layers: Sequence[EditedLayer], tokens: Tokens, tuples: Sequence[EditTuple]
    ) -> "CachedBaseOutputs":
        """Return an empty cache for the prompts of tuples; :meth:`write` computes its contents."""
        edits = model.encode([item.edit for item in tuples], [item.id for item in tuples])
        others = [(PromptAnswer(prompt, item.edit.answer), item.id) for item in tuples for prompt in item.equivalent]
        others += [(item.unrelated, item.id) for item in tuples]
        encoded = model.encode([pair for pair, _ in others], [place for _, place in others])
        return cls(model, layers, tokens, edits, [*edits, *encoded])

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Return by file name its number of rows and their width: keys (n, d_in), states (n, d), ..."""
        shapes: dict[str, tuple[int, int]] = {}
        for number, layer in enumerate(self.layers):
            n, (d_in, d_out) = self.rows[layer.name].n, layer.shape
            shapes |= {f"keys_{number}": (n, d_in), f"gradients_{number}": (n, d_out)}
        after_prefix, after_all = self.widths
        return shapes | {"states": (self.states.n, after_prefix), "answers": (self.answers.n, after_all)}

    @property
    def size(self) -> int:
        """Size of all rows, in bytes."""
        return sum(n * width for n, width in self.shapes().values()) * self.model.module.dtype.itemsize

    def write(self, folder: Path, key: CacheKey, batch_size: BatchSize) -> None:
        """Compute everything into files of a folder; ``index.json`` holds the key, the shapes and the examples.

        Ranks of one machine write the rows of their shares into the same files.
        """
        here, dtype = ranks(), self.model.module.dtype
        if here.first:
            for name, (n, width) in self.shapes().items():
                with (folder / f"{name}.rows").open("xb") as file:
                    file.truncate(n * width * dtype.itemsize)
        here.meet()  # The others wait for the files.
        for name, (n, width) in self.shapes().items():
            opened = (folder / f"{name}.rows").open("r+b", buffering=0)
            self.files[name] = FileRows(n, width, dtype, torch.device("cpu"), opened)
        edits = shared([replace(edit, weight=1.0) for edit in self.edits.values()])
        prompts = shared(list(self.prompts.values()))
        with here.together():
            for _ in self.model.in_batches("cached keys and value gradients", edits, batch_size, self.write_edits):
                pass
            for _ in self.model.in_batches("cached hidden states", prompts, batch_size, self.write_prompts):
                pass
        if not here.first:
            return
        examples = {
            name: [asdict(replace(example, source=None)) for example in kind.values()]
            for name, kind in (("edits", self.edits), ("prompts", self.prompts))
        }
        write_text(folder / "index.json", json.dumps({"key": asdict(key), "shapes": self.shapes(), **examples}))

    def write_edits(self, batch: Batch) -> None:
        """Write keys and value gradients of a batch of edits of weight 1."""
        captured = capture_batch(self.model, self.layers, batch, self.tokens)
        for number, layer in enumerate(self.layers):
            keys, gradients = captured[layer.name]  # (n, d_in), (n, d_out)
            write_rows(self.files[f"keys_{number}"], self.rows[layer.name], batch.members, keys)
            write_rows(self.files[f"gradients_{number}"], self.rows[layer.name], batch.members, gradients)

    @torch.no_grad()
    def write_prompts(self, batch: Batch) -> None:
        """Write the hidden states after the prefix at all positions, and after the last block at answer positions."""
        assert self.last_block
        with self.prefix.recording() as prefix, self.last_block.recording() as last:
            self.model.answer_logits(batch)
        answers = states_after(self.last_block, last[0], batch, batch.answer_rows)  # (R, d)
        write_rows(self.files["answers"], self.answers, batch.members, answers)
        if self.prefix.last:
            states = states_after(self.prefix.last, prefix[0], batch, batch.attended_rows())  # (tokens, d)
            write_rows(self.files["states"], self.states, batch.members, states)

    @classmethod
    def open(
        cls, folder: Path, model: LanguageModel, layers: Sequence[EditedLayer], key: CacheKey
    ) -> "CachedBaseOutputs":
        """Open what :meth:`write` wrote.

        Raises:
            UserError: if it was written for something else, or is broken.
        """
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            edits, prompts = ([read_example(raw) for raw in index[kind]] for kind in ("edits", "prompts"))
            cache = cls(model, layers, key.tokens, edits, prompts)
            for name, (n, width) in cache.shapes().items():
                path, dtype = folder / f"{name}.rows", model.module.dtype
                if index["shapes"][name] != [n, width] or path.stat().st_size != n * width * dtype.itemsize:
                    raise ValueError(f"{path.name} holds another matrix")
                cache.files[name] = FileRows(n, width, dtype, model.device, path.open("rb", buffering=0))
        except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
            reason = type(error).__name__
            raise UserError(f"{folder} cannot be read as a cache ({reason}); delete it.") from None
        if index["key"] != asdict(key):
            raise UserError(f"{folder} was made for another model, other layers or other tokens; delete it.")
        return cache

    def capture(self, editor: HyperNetworkEditor, edits: Sequence[Example]) -> dict[str, KeysAndGradients]:
        """Read by layer the keys, (n, d_in), and the gradients, (n, d_out), times each edit's weight in its group.

        Raises:
            DivergedError: if one of them is not finite.
        """
        edits = shared(edits)
        with ranks().together():
            captured = empty_rows(self.model, self.layers, edits, editor.settings, editor.device)
            for number, layer in enumerate(self.layers):
                start, rows = 0, captured[layer.name]
                for edit in edits:
                    place = self.rows[layer.name].place(edit)
                    keys = self.files[f"keys_{number}"][place].to(rows.keys.dtype)
                    gradients = self.files[f"gradients_{number}"][place].to(rows.keys.dtype)
                    start = rows.write(start, keys, edit.weight * gradients, layer.name)
        return captured

    @contextmanager
    def after_prefix(self, batch: Batch) -> Iterator[None]:
        """Inside the ``with`` block, let the model start with the cached hidden states."""
        if self.prefix.last is None or not self.prompts:
            yield
            return
        state = self.padded(batch, "states", self.states, batch.attended_rows())  # (B, T, d)
        with self.prefix.last.resuming(self.block_output(), lambda: state):
            yield

    @torch.no_grad()
    def before(self, batch: Batch) -> tuple[Tensor, AbstractContextManager[None]]:
        """Return the answer logits, (R, C), computed from the cached states after the last block."""
        if self.last_block is None:
            return self.model.answer_logits(batch), nullcontext()
        state = self.padded(batch, "answers", self.answers, batch.answer_rows)  # (B, T, d)
        with self.last_block.resuming(self.block_output(), lambda: state):
            return self.model.answer_logits(batch), self.after_prefix(batch)

    def padded(self, batch: Batch, name: str, index: RowIndex, rows: Tensor) -> Tensor:
        """Return the cached hidden states of a batch, (B, T, d): 0 except at the positions ``rows``, (R,)."""
        cached = torch.cat([self.files[name][index.place(example)] for example in batch.members])  # (R, d)
        return padded(batch, rows, cached)

    def block_output(self) -> Any:
        """Return what a block returned for some prompt, of which only the type counts: a tensor, or a tuple."""
        if not self.block_outputs:
            assert self.last_block
            with torch.no_grad(), self.last_block.recording() as self.block_outputs:
                self.model.answer_logits(self.model.collate([next(iter(self.prompts.values()))], [0]))
        return self.block_outputs[0]


def digest(example: Example) -> str:
    """Return the key by which an example is found: a digest of its content without its weight."""
    content = (example.tokens, example.answer_positions, example.targets, example.decoder_tokens)
    return hashlib.sha256(repr(content).encode()).hexdigest()[:32]


def read_example(raw: Mapping[str, Any]) -> Example:
    """Read an example of an index."""
    tokens, positions, targets = (tuple(raw[name]) for name in ("tokens", "answer_positions", "targets"))
    return Example(tokens, positions, targets, decoder_tokens=tuple(raw["decoder_tokens"]))


def write_rows(file: FileRows, index: RowIndex, members: Sequence[Example], rows: Tensor) -> None:
    """Write the rows of a batch, (R, d), which holds its examples one after the other."""
    start = 0
    for example in members:
        place = index[digest(example)]
        file[place] = rows[start : start + place.stop - place.start]
        start += place.stop - place.start
