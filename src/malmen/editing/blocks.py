"""Reading the hidden state after a Transformer block, and letting a model start there."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from malmen.editing.capture import Positions
from malmen.editing.layers import EditedLayer
from malmen.editing.probe import probe_batch, rows_agree
from malmen.errors import UserError
from malmen.models.language_model import Batch, LanguageModel
from malmen.runtime.progress import logger


class BlockReached(Exception):  # noqa: N818 (it is no error)
    """Ends a run of the model, which has computed what is asked for."""


@dataclass(frozen=True)
class Block:
    """A Transformer block, and those before it in its stack.

    Attributes:
        name: its name among the model's modules.
        module: the block; its output is the hidden state (B, T, d), or a tuple that begins with it.
        earlier: the blocks before it.
        skips: whether a model that starts after this block may leave out the earlier ones. Some may not: their later
            blocks use more of the earlier ones than the hidden state.
        last: whether no block follows in its stack, so that attention carries no change of its state to later tokens.
    """

    name: str
    module: nn.Module
    earlier: Sequence[nn.Module] = field(repr=False)
    skips: bool = True
    last: bool = False

    @classmethod
    def around(cls, model: LanguageModel, layer: str) -> "Block":
        """Return the block that holds a layer, by the first number in the layer's name.

        Raises:
            UserError: if there is no number in the layer's name, or the block's hidden state cannot be replaced.
        """
        place = stack_and_number(layer)
        if place is None:
            raise UserError(f"The layer {layer} is not inside a numbered Transformer block; choose layers inside one.")
        block = cls.at(model, *place)
        if not block.skips and not starts_alike(model, block):
            raise UserError(
                f"{block.name} does not return one hidden state for each token from which the model goes on, so MEMIT "
                "cannot edit it; use another editor."
            )
        return block

    @classmethod
    def at(cls, model: LanguageModel, stack: str, number: int) -> "Block":
        """Return a block by the name of its stack and its number in it, after trying what it :attr:`skips`."""
        blocks = list(model.module.get_submodule(stack).children())
        number = range(len(blocks))[number]
        block = cls(f"{stack}.{number}", blocks[number], blocks[:number], last=number == len(blocks) - 1)
        if block.name not in model.shortcuts:
            model.shortcuts[block.name] = starts_alike(model, block)
            if not model.shortcuts[block.name]:
                logger.info("Runs of the model do not skip the blocks before %s: its later ones need them", block.name)
        return replace(block, skips=model.shortcuts[block.name])

    @contextmanager
    def recording(self) -> Iterator[list[Any]]:
        """Inside the ``with`` block, append the block's output at every run of the model."""
        outputs: list[Any] = []
        with self.module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output)):
            yield outputs

    @contextmanager
    def ending(self) -> Iterator[list[Any]]:
        """Record the block's output as :meth:`recording` does; the run in the ``with`` block ends there."""

        def end(*_: Any) -> None:
            raise BlockReached

        with self.recording() as outputs, self.module.register_forward_hook(end), suppress(BlockReached):
            yield outputs

    @contextmanager
    def resuming(self, output: Any, state: Callable[[], Tensor]) -> Iterator[None]:
        """Inside the ``with`` block, let the model start after this block, with a given hidden state.

        Neither this block nor the earlier ones are computed: they pass on what they are given. Where the same sequences
        run many times and nothing changes before this block, that saves the larger part of the work. Where that may not
        be (:attr:`skips`), all are computed, and only this block's hidden state is replaced.

        Args:
            output: what the block returned in another run; only its type counts: a tensor, or a tuple.
            state: returns the hidden state, (B, T, d); called at every run.
        """
        if not self.skips:
            with self.module.register_forward_hook(lambda _module, _inputs, own: with_state(own, state())):
                yield
            return
        with ExitStack() as stack:
            for block in self.earlier:
                stack.enter_context(forward_replaced(block, lambda hidden, *_, **__: with_state(output, hidden)))
            stack.enter_context(forward_replaced(self.module, lambda *_, **__: with_state(output, state())))
            yield


@torch.no_grad()
def state_width(model: LanguageModel, block: Block) -> int:
    """Return d, the size of the hidden state after a block, (B, T, d)."""
    with block.recording() as outputs:
        model.answer_logits(probe_batch(model))
    return hidden_state(outputs[0]).shape[-1]


@torch.no_grad()
def starts_alike(model: LanguageModel, block: Block) -> bool:
    """Return whether a model that starts after a block gives the answers of a whole run, on two short sequences.

    The hidden state is 0 at padding, as where it was cached.
    """
    batch, other = probe_batch(model), probe_batch(model, after=1)
    try:
        with block.recording() as outputs:
            expected = model.answer_logits(batch)
        model.answer_logits(other)  # whatever the model keeps of a run is not that of the first
        state = hidden_state(outputs[0])  # (B, T, d)
        attended = batch.mask(model.in_decoder(block.module))  # (B, T)
        if state.shape[:-1] != attended.shape:
            return False
        kept = state * attended.to(state).unsqueeze(-1)
        with block.resuming(outputs[0], lambda: kept):
            found = model.answer_logits(batch)
    except Exception:  # The code of a model may fail in any way where it is run in parts.
        return False
    return len(outputs) == 1 and rows_agree(model, found, expected)


@dataclass(frozen=True)
class FrozenPrefix:
    """The blocks before the first edited one: their outputs are the same before and after an edit.

    Attributes:
        last: the last of these blocks; None if there are none, so that every run is a whole one.
    """

    last: Block | None

    @classmethod
    def of(cls, model: LanguageModel, layers: Sequence[EditedLayer]) -> "FrozenPrefix":
        """Return the blocks before all edited layers, in the first stack that holds an edited layer."""
        in_encoder = [layer for layer in layers if not model.in_decoder(layer.module)]
        places = [stack_and_number(layer.name) for layer in in_encoder or layers]
        known = [place for place in places if place is not None]
        if len(known) < len(places) or len({stack for stack, _ in known}) != 1:
            return cls(None)
        stack, number = min(known)
        block = Block.at(model, stack, number - 1) if number else None
        return cls(block if block and block.skips else None)

    @contextmanager
    def recording(self) -> Iterator[list[Any]]:
        """Inside the ``with`` block, append the output of the last of these blocks at every run of the model."""
        if self.last is None:
            yield []
            return
        with self.last.recording() as outputs:
            yield outputs

    @contextmanager
    def resuming(self, outputs: Sequence[Any]) -> Iterator[None]:
        """Inside the ``with`` block, let the model start with what :meth:`recording` gave for the same sequences."""
        if self.last is None:
            yield
            return
        (output,) = outputs
        with self.last.resuming(output, lambda: hidden_state(output)):
            yield


class PrefixStates:
    """Hidden states after the frozen prefix, kept in main memory: it runs once for a sequence that is seen many times.

    Args:
        model: the language model. One with two stacks always runs as a whole.
        layers: the edited layers.
    """

    def __init__(self, model: LanguageModel, layers: Sequence[EditedLayer]) -> None:
        self.model = model
        self.last = None if model.two_stacks else FrozenPrefix.of(model, layers).last
        self.states: dict[tuple[int, ...], Tensor] = {}  # by tokens, (T, d)
        self.output: Any = None

    @contextmanager
    def resuming(self, batch: Batch) -> Iterator[None]:
        """Inside the ``with`` block, let the model start after the prefix with the states of a batch."""
        if self.last is None:
            yield
            return
        if any(example.tokens not in self.states for example in batch.members):
            self.compute(self.last, batch)
        kept = torch.cat([self.states[example.tokens] for example in batch.members])  # (n, d)
        state = padded(batch, batch.attended_rows(), kept.to(hidden_state(self.output).device))  # (B, T, d)
        with self.last.resuming(self.output, lambda: state):
            yield

    @torch.no_grad()
    def compute(self, last: Block, batch: Batch) -> None:
        """Run the prefix on a batch, and keep its states."""
        with last.ending() as outputs:
            self.model.answer_logits(batch)
        (self.output,) = outputs
        states = hidden_state(self.output).flatten(0, 1)[batch.attended_rows()].cpu()  # (n, d)
        for example, own in zip(batch.members, states.split([len(one.tokens) for one in batch.members]), strict=True):
            self.states[example.tokens] = own


def padded(batch: Batch, rows: Tensor, states: Tensor) -> Tensor:
    """Return the hidden states of a batch, (B, T, d): ``states``, (R, d), at the positions ``rows``, (R,), else 0."""
    b, t = batch.inputs["input_ids"].shape
    state = states.new_zeros(b * t, states.shape[1])  # (B*T, d)
    state[rows] = states
    return state.view(b, t, -1)


def states_after(block: Block, output: Any, batch: Batch, rows: Tensor) -> Tensor:
    """Return the hidden state in a block's output at R of the B*T positions, (R, d), in float32 at least."""
    return Positions.all(block.name, batch).at_rows(hidden_state(output), rows)


def stack_and_number(layer: str) -> tuple[str, int] | None:
    """Return the stack and the number of the block that holds a layer, by the first number in the layer's name."""
    match = re.match(r"(.+?)\.(\d+)\.", layer)
    return (match[1], int(match[2])) if match else None


def hidden_state(output: Any) -> Tensor:
    """Return the hidden state, (B, T, d), in a block's output.

    Raises:
        TypeError: if the output is neither a tensor nor a tuple or list that begins with one.
    """
    state = output[0] if isinstance(output, tuple | list) else output
    if not isinstance(state, Tensor):
        raise TypeError(f"a block returns {type(output).__name__}")
    return state


def with_state(output: Any, state: Tensor) -> Any:
    """Return a block's output with another hidden state, (B, T, d)."""
    return type(output)((state, *output[1:])) if isinstance(output, tuple | list) else state


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute another function inside the ``with`` block."""
    # An attribute of the instance hides the method of its class, and is removed afterwards. An attribute that was there
    # before is restored: accelerate's, which moves hidden states between the devices of a spread model.
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before
