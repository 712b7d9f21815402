"""Checkpoints: the saved state of long work, from which an interrupted job resumes.

A state is one safetensors file with plain values as JSON in its header, written whole or not at all. It belongs to the
settings, data, weights and code that it was made with, and is never used with others. It does not depend on the number
of ranks that share the job: the first one writes it, all read it, and another number of them may go on. Snakemake
removes a job's outputs before it makes them again, so states lie in a folder of their own, which the job removes once
its outputs exist.
"""

import hashlib
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from malmen.errors import InterruptedJobError, UserError
from malmen.runtime.code_digest import code_digest
from malmen.runtime.files import replacing
from malmen.runtime.noted import NOTES
from malmen.runtime.progress import logger
from malmen.runtime.ranks import ranks
from malmen.runtime.signals import ADVICE, SAVE_SECONDS, deferring_signals

HEADER = "malmen_state"
STATES = "state"
"""The folder in which the states of all jobs lie."""

Source = random.Random | torch.Generator
"""A random number generator."""


@dataclass
class State:
    """What a job needs to resume.

    Attributes:
        tensors: by name.
        values: any JSON values.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Saving:
    """Where and how often a job saves its states.

    Attributes:
        folder: the folder of the job's states; None if nothing is saved.
        every_seconds: the least time between two saves of running work.
    """

    folder: Path | None = None
    every_seconds: float = SAVE_SECONDS

    @classmethod
    def configured(cls, folder: str, config: Mapping[str, Any]) -> "Saving":
        """Return the saving that a configuration, as read from YAML, asks for. The interval changes no result."""
        return cls(Path(folder), (config.get("jobs") or {}).get("save_seconds", SAVE_SECONDS))

    def checkpoint(self, name: str, what: str, code: str, belongs_to: Mapping[str, Any]) -> "Checkpoint":
        """Return the checkpoint of a part of the job.

        Args:
            name: the name of its file.
            what: the name of the work in messages.
            code: the module that does the work.
            belongs_to: everything else that the state depends on, as JSON values.
        """
        if self.folder is None:
            return Checkpoint(None, what)
        about = {**belongs_to, "torch": torch.__version__, "code": code_digest(code)}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
        return Checkpoint(self.folder / f"{name}.safetensors", what, digest, self.every_seconds)

    def clear(self) -> None:
        """Remove all states of the job, then the empty folders up to :data:`STATES`; the first rank does."""
        if self.folder and ranks().first:
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # ends at the first one that is not empty
                for parent in self.folder.parents:
                    if STATES in parent.parts:
                        parent.rmdir()


NOTHING_SAVED = Saving()


@dataclass(frozen=True)
class Checkpoint:
    """The file of one state.

    Attributes:
        path: its file; None if nothing is saved.
        what: the name of the work in messages.
        belongs_to: the digest of everything that the state depends on.
        every_seconds: the least time between two saves of running work.
    """

    path: Path | None = None
    what: str = "work"
    belongs_to: str = ""
    every_seconds: float = SAVE_SECONDS

    def read(self) -> State | None:
        """Return the saved state, or None if there is none of the same settings, data, weights and code.

        Raises:
            UserError: if not all ranks see the same one.
        """
        state = self._read()
        if not ranks().alone:
            seen = ranks().gathered(hashlib.sha256(json.dumps(state.values).encode()).digest() if state else b"")
            if set(seen) != {seen[0]}:
                raise UserError(f"Not all processes of this job see the same {self.path}; {ADVICE} in a minute.")
        return state

    def _read(self) -> State | None:
        if self.path is None or not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                header = json.loads((file.metadata() or {})[HEADER])
                values: dict[str, Any] = header["values"]
                if header["belongs_to"] != self.belongs_to:
                    logger.info("%s: ignoring %s, saved with other settings, data or code", self.what, self.path)
                    return None
                # Cloned, because the file is mapped into memory.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            logger.info("%s: ignoring %s, which cannot be read (%s)", self.what, self.path, type(error).__name__)
            return None
        NOTES.resumed(header.get("ranks", [1]))
        return State(tensors, values)

    def write(self, state: State) -> None:
        """Save a state in place of the previous one; all ranks wait until the first has written it."""
        if self.path is None:
            return
        with ranks().together():
            if ranks().first:
                self._write(self.path, state)

    def _write(self, path: Path, state: State) -> None:
        header: dict[str, Any] = {"belongs_to": self.belongs_to, "values": state.values}
        if (worked := NOTES.in_turn(ranks().size)) != [1]:
            header["ranks"] = worked
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
        make_folder(path.parent)
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={HEADER: json.dumps(header)})

    @contextmanager
    def saving(self, state: Callable[[], State]) -> Iterator[Callable[[], None]]:
        """Yield a function to call after each step of the work, which saves when ``every_seconds`` have passed.

        After a signal to end, that function saves what ``state`` returns and raises. Ranks do so after the same step:
        when the clock of the first one says so, or a signal has reached any of them.

        Raises:
            InterruptedJobError: if a signal arrived.
        """
        last = time.monotonic()

        def step_taken() -> None:
            nonlocal last
            due, ended_by = agreed(time.monotonic() - last >= self.every_seconds, next(iter(signals), None))
            if ended_by or due:
                self.write(state())
                last = time.monotonic()
            if ended_by:
                kept = "its state was saved" if self.path else "no state was saved"
                raise InterruptedJobError(f"{self.what} was ended by {ended_by} ({kept}); {ADVICE}.")

        with deferring_signals() as signals:
            yield step_taken


NO_CHECKPOINT = Checkpoint()


def agreed(due: bool, signal: str | None) -> tuple[bool, str | None]:
    """Return whether the first rank finds that something is due, and the signal that any rank got; None without one."""
    votes = ranks().gathered((due, signal))
    return votes[0][0], next((signal for _, signal in votes if signal), None)


def make_folder(path: Path, tries: int = 100) -> None:
    """Make a folder and its parents, even while another job removes the same parents as empty."""
    for _ in range(tries):
        with suppress(FileNotFoundError, FileExistsError):
            return path.mkdir(parents=True, exist_ok=True)
    return path.mkdir(parents=True, exist_ok=True)


def training_tensors(parameters: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return copies of parameters and of their optimiser's state, by name."""
    named = {f"parameters.{name}": tensor for name, tensor in parameters.items()}
    for number, remembered in optimiser.state_dict()["state"].items():
        named |= {f"optimiser.{number}.{name}": tensor for name, tensor in remembered.items()}
    return {name: tensor.detach().clone() for name, tensor in named.items()}


@torch.no_grad()
def restore_training(
    parameters: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Restore what :func:`training_tensors` returned; the optimiser keeps its learning rate and other options."""
    for name, tensor in parameters.items():
        tensor.copy_(tensors[f"parameters.{name}"])
    remembered: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".")
            remembered.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": remembered})


def torch_sources() -> list[Source]:
    """Return torch's own generators, of the CPU and of all GPUs in use."""
    return [torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())]


def rng_states(sources: Sequence[Source]) -> list[Any]:
    """Return the states of random number generators, as JSON values."""
    return [
        source.get_state().tolist() if isinstance(source, torch.Generator) else source.getstate() for source in sources
    ]


def restore_rng_states(sources: Sequence[Source], states: Sequence[Any]) -> None:
    """Set generators to the states that :func:`rng_states` returned."""
    for source, state in zip(sources, states, strict=True):
        if isinstance(source, torch.Generator):
            source.set_state(torch.tensor(state, dtype=torch.uint8))
        else:
            version, internal, gauss = state
            source.setstate((version, tuple(internal), gauss))
