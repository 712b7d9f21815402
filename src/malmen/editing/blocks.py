"""Reading the hidden state after a Transformer block, and letting a model start there."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from malmen.editing.layers import EditedLayer
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel


@dataclass(frozen=True)
class Block:
    """A Transformer block, and those before it in its stack.

    Attributes:
        module: the block; its output is the hidden state (B, T, d), or a tuple that begins with it.
        earlier: the blocks before it.
        later: the blocks after it.
    """

    module: nn.Module
    earlier: Sequence[nn.Module]
    later: Sequence[nn.Module]

    @classmethod
    def around(cls, model: nn.Module, layer: str) -> "Block":
        """Return the block that holds a layer, by the first number in the layer's name.

        Raises:
            UserError: if there is no number in the layer's name.
        """
        place = stack_and_number(layer)
        if place is None:
            raise UserError(f"The layer {layer} is not inside a numbered Transformer block; choose layers inside one.")
        return cls.at(model, *place)

    @classmethod
    def at(cls, model: nn.Module, stack: str, number: int) -> "Block":
        """Return a block by the name of its stack and its number in it."""
        blocks = list(model.get_submodule(stack).children())
        return cls(blocks[number], blocks[:number], blocks[number + 1 :])

    @contextmanager
    def recording(self) -> Iterator[list[Any]]:
        """Inside the ``with`` block, append the block's output at every run of the model."""
        outputs: list[Any] = []
        with self.module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output)):
            yield outputs

    @contextmanager
    def ending(self) -> Iterator[list[Any]]:
        """Record the block's output as :meth:`recording` does, and skip the blocks after it."""
        with self.recording() as outputs, ExitStack() as stack:
            for block in self.later:
                stack.enter_context(forward_replaced(block, lambda hidden, *_, **__: with_state(outputs[-1], hidden)))
            yield outputs

    @contextmanager
    def resuming(self, output: Any, state: Callable[[], Tensor]) -> Iterator[None]:
        """Inside the ``with`` block, let the model start after this block, with a given hidden state.

        Neither this block nor the earlier ones are computed: they pass on what they are given. Where the same sequences
        run many times and nothing changes before this block, that saves the larger part of the work.

        Args:
            output: what the block returned in another run; only its type counts: a tensor, or a tuple.
            state: returns the hidden state, (B, T, d); called at every run.
        """
        with ExitStack() as stack:
            for block in self.earlier:
                stack.enter_context(forward_replaced(block, lambda hidden, *_, **__: with_state(output, hidden)))
            stack.enter_context(forward_replaced(self.module, lambda *_, **__: with_state(output, state())))
            yield


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
        return cls(Block.at(model.module, stack, number - 1) if number else None)

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


def stack_and_number(layer: str) -> tuple[str, int] | None:
    """Return the stack and the number of the block that holds a layer, by the first number in the layer's name."""
    match = re.match(r"(.+?)\.(\d+)\.", layer)
    return (match[1], int(match[2])) if match else None


def hidden_state(output: Any) -> Tensor:
    """Return the hidden state, (B, T, d), in a block's output."""
    state = output[0] if isinstance(output, tuple) else output
    assert isinstance(state, Tensor)
    return state


def with_state(output: Any, state: Tensor) -> Any:
    """Return a block's output with another hidden state, (B, T, d)."""
    return (state, *output[1:]) if isinstance(output, tuple) else state


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
