"""State of long work, kept beside a job's outputs, from which an interrupted job goes on.

A state is one safetensors file, with plain values as JSON in its header; it is written whole or not at all. It belongs
to the settings, data, weights and code that it was made with: to any others it is worth nothing, and is not used.
Snakemake removes a job's outputs before it makes them again, so states lie in a folder of their own, which the job
removes when its outputs are there.
"""

import hashlib
import json
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from malmen.runtime.code_digest import code_digest
from malmen.runtime.files import replacing
from malmen.runtime.progress import logger
from malmen.runtime.signals import ADVICE, SAVE_SECONDS, InterruptedJobError, deferring_signals

HEADER = "malmen_state"
STATES = "state"
"""The folder in which the states of all jobs lie."""

Source = random.Random | torch.Generator
"""A source of random numbers."""


@dataclass
class State:
    """What work needs to go on.

    Attributes:
        tensors: by name.
        values: anything that JSON can hold.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Saving:
    """Where and how often a job saves its states.

    Attributes:
        folder: of the job's states; None if nothing is saved.
        every_seconds: at least so much time lies between two saves of running work.
    """

    folder: Path | None = None
    every_seconds: float = SAVE_SECONDS

    @classmethod
    def configured(cls, folder: str, config: Mapping[str, Any]) -> "Saving":
        """Return what a configuration, as read from YAML, asks for: the interval changes no result."""
        return cls(Path(folder), (config.get("jobs") or {}).get("save_seconds", SAVE_SECONDS))

    def checkpoint(self, name: str, what: str, code: str, belongs_to: Mapping[str, Any]) -> "Checkpoint":
        """Return the checkpoint of a part of the job.

        Args:
            name: of its file.
            what: names the work in messages.
            code: the module that does the work.
            belongs_to: all else that the state depends on, as JSON can hold it.
        """
        if self.folder is None:
            return Checkpoint(None, what)
        about = {**belongs_to, "torch": torch.__version__, "code": code_digest(code)}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
        return Checkpoint(self.folder / f"{name}.safetensors", what, digest, self.every_seconds)

    def clear(self) -> None:
        """Remove all states of the job, and the folders up to :data:`STATES` that are empty then."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            remove_empty(parent for parent in self.folder.parents if STATES in parent.parts)


NOTHING_SAVED = Saving()


@dataclass(frozen=True)
class Checkpoint:
    """The place of one state.

    Attributes:
        path: its file; None if nothing is saved.
        what: names the work in messages.
        belongs_to: digest of what the state depends on.
        every_seconds: at least so much time lies between two saves of running work.
    """

    path: Path | None = None
    what: str = "work"
    belongs_to: str = ""
    every_seconds: float = SAVE_SECONDS

    def read(self) -> State | None:
        """Return the saved state, or None if there is none that belongs here."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                header = json.loads((file.metadata() or {})[HEADER])
                values: dict[str, Any] = header["values"]
                if header["belongs_to"] != self.belongs_to:
                    logger.info("%s: %s is of other settings, data or code; not used", self.what, self.path)
                    return None
                # Clones, since the file is mapped into memory.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            logger.info("%s: %s cannot be read (%s); not used", self.what, self.path, type(error).__name__)
            return None
        return State(tensors, values)

    def write(self, state: State) -> None:
        """Save a state in place of the former one."""
        if self.path is None:
            return
        header = json.dumps({"belongs_to": self.belongs_to, "values": state.values})
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
        make_folder(self.path.parent)
        with replacing(self.path) as temporary:
            save_file(tensors, temporary, metadata={HEADER: header})

    @contextmanager
    def saving(self, state: Callable[[], State]) -> Iterator[Callable[[], None]]:
        """Give a function to call after each step of the work: it saves if it is time to.

        A signal to end is heeded there: what ``state`` returns is saved first.

        Raises:
            InterruptedJobError: if a signal came.
        """
        last = time.monotonic()

        def step_taken() -> None:
            nonlocal last
            if signals or time.monotonic() - last >= self.every_seconds:
                self.write(state())
                last = time.monotonic()
            if signals:
                kept = "its state is saved" if self.path else "nothing of it is kept"
                raise InterruptedJobError(f"{self.what} was ended by {signals[0]}, and {kept}; {ADVICE}.")

        with deferring_signals() as signals:
            yield step_taken


NO_CHECKPOINT = Checkpoint()


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, innermost first, up to the first one that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def make_folder(path: Path, tries: int = 100) -> None:
    """Make a folder and its parents, although another job may be removing those as empty at the same moment."""
    for _ in range(tries):
        with suppress(FileNotFoundError, FileExistsError):
            return path.mkdir(parents=True, exist_ok=True)
    return path.mkdir(parents=True, exist_ok=True)


def training_tensors(parameters: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return copies of parameters and of what their optimiser remembers, by name."""
    named = {f"parameters.{name}": tensor for name, tensor in parameters.items()}
    for number, remembered in optimiser.state_dict()["state"].items():
        named |= {f"optimiser.{number}.{name}": tensor for name, tensor in remembered.items()}
    return {name: tensor.detach().clone() for name, tensor in named.items()}


@torch.no_grad()
def restore_training(
    parameters: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what :func:`training_tensors` returned; rates and the like stay the optimiser's own."""
    for name, tensor in parameters.items():
        tensor.copy_(tensors[f"parameters.{name}"])
    remembered: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".")
            remembered.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": remembered})


def torch_sources() -> list[Source]:
    """Return torch's own sources, of the CPU and of all GPUs in use."""
    return [torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())]


def rng_states(sources: Sequence[Source]) -> list[Any]:
    """Return where sources of random numbers are, as JSON can hold it."""
    return [
        source.get_state().tolist() if isinstance(source, torch.Generator) else source.getstate() for source in sources
    ]


def restore_rng_states(sources: Sequence[Source], states: Sequence[Any]) -> None:
    """Let sources go on from where :func:`rng_states` found them."""
    for source, state in zip(sources, states, strict=True):
        if isinstance(source, torch.Generator):
            source.set_state(torch.tensor(state, dtype=torch.uint8))
        else:
            version, internal, gauss = state
            source.setstate((version, tuple(internal), gauss))
