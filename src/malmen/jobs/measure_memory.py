"""Peak memory of one meta-step, separated or concatenated, each measured in a fresh process (Figure 9).

``python -m malmen.jobs.measure_memory`` is such a process: it reads a :class:`Trial` from standard input as JSON and
writes what it measured to standard output.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from malmen.config.settings import EditorSettings, editor_settings
from malmen.data.tuples import EditTuple, read_tuples
from malmen.editing.concatenated import meta_gradient_concatenated
from malmen.editing.layers import edited_layers
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import MetaTrainer, encode_group, meta_gradient
from malmen.errors import DoesNotFitError, UserError
from malmen.jobs.common import Machine, ModelSpec, write_json
from malmen.models.language_model import LanguageModel
from malmen.runtime.process_stats import highest_resident_bytes
from malmen.runtime.progress import logger

Computation = Literal["loaded", "separated", "concatenated"]
"""What a process does: only load the model, or take a meta-step with one of the two ways to its gradient."""

GRADIENTS = {"separated": meta_gradient, "concatenated": meta_gradient_concatenated}


@dataclass(frozen=True)
class Trial:
    """What one process does.

    Attributes:
        spec: the model.
        settings: the editor, freshly initialised.
        tuples: a file of training tuples; they are repeated where a group needs more than there are.
        computation: what is measured.
        n_edits: the number of edits m; 0 if the model is only loaded.
        limit_bytes: what the process may take at most; None for no limit.
        machine: where it runs.
    """

    spec: ModelSpec
    settings: EditorSettings
    tuples: Path
    computation: Computation
    n_edits: int
    limit_bytes: int | None
    machine: Machine

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Trial":
        """Read what :meth:`to_json` wrote."""
        raw = json.loads(text)
        raw["spec"]["directory"] = Path(raw["spec"]["directory"])
        nested = {
            "spec": ModelSpec(**raw["spec"]),
            "settings": editor_settings(raw["settings"]),
            "tuples": Path(raw["tuples"]),
            "machine": Machine(**raw["machine"]),
        }
        return cls(**raw | nested)


def trials(
    spec: ModelSpec,
    editors: Mapping[Computation, EditorSettings],
    tuples: Path,
    sizes: Sequence[int],
    limit_bytes: int | None,
    machine: Machine,
) -> list[Trial]:
    """Return the trials of Figure 9: the model loaded, then each computation, with its editor, at each m."""
    loaded = Trial(spec, next(iter(editors.values())), tuples, "loaded", 0, limit_bytes, machine)
    steps = product(editors.items(), sorted(sizes))
    return [loaded, *(replace(loaded, computation=c, settings=editor, n_edits=m) for (c, editor), m in steps)]


def measure_memory(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Run each trial in a process of its own, one after the other, and return what each measured.

    Returns:
        per trial ``computation``, ``n_edits``, ``status`` ("ok" or "over the limit"), ``peak_bytes`` and ``seconds``,
        these two None if the limit was exceeded.

    Raises:
        UserError: if a process fails for another reason than its limit, or the limit does not even hold the model.
    """
    measured = []
    for trial in trials:
        result = run_apart(trial)
        if trial.computation == "loaded" and result["status"] != "ok":
            raise UserError(f"The memory limit of {trial.limit_bytes} bytes does not hold the model alone; raise it.")
        peak = "over the limit" if result["peak_bytes"] is None else f"{result['peak_bytes'] / 2**20:.0f} MiB"
        logger.info("%s, m = %d: %s", trial.computation, trial.n_edits, peak)
        measured.append({"computation": trial.computation, "n_edits": trial.n_edits, **result})
    return measured


def write_memory(path: Path, trials: Sequence[Trial]) -> None:
    """Measure trials of one model on one machine under one limit, and write the file that the figure is drawn from."""
    first = trials[0]
    about = {"model": first.spec.name, "model_label": first.spec.label, "device": first.machine.device}
    write_json(path, {**about, "limit_bytes": first.limit_bytes, "points": measure_memory(trials)})


OVER: dict[str, Any] = {"status": "over the limit", "peak_bytes": None, "seconds": None}


def run_apart(trial: Trial) -> dict[str, Any]:
    """Run a trial in a fresh process; end it as soon as its resident memory exceeds the limit (on a CPU)."""
    command = [sys.executable, "-m", "malmen.jobs.measure_memory"]
    # In a group of its own, Ctrl-C reaches this process alone, which then ends that one.
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0) as process,
        ended(process),
    ):
        assert process.stdin and process.stdout
        process.stdin.write(trial.to_json())
        process.stdin.close()
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            if trial.machine.device == "cpu" and resident_bytes(watched) > (trial.limit_bytes or sys.maxsize):
                return OVER
            time.sleep(0.01)
        if process.returncode:
            raise UserError(
                f"A meta-step ({trial.computation}, m = {trial.n_edits}) ended with status {process.returncode}; "
                "if this machine ran out of memory, set a limit below what it has."
            )
        result: dict[str, Any] = json.loads(process.stdout.read())
        return result


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """See to it that a process has ended afterwards, whatever happens within."""
    try:
        yield
    finally:
        process.kill()


def resident_bytes(process: psutil.Process) -> int:
    """Return the resident size of a process, 0 once it has ended."""
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def run_trial(trial: Trial) -> dict[str, Any]:
    """Take the step in this process, and measure this process since its start."""
    model = trial.spec.load(trial.machine)
    if model.device.type == "cuda" and trial.limit_bytes:
        torch.cuda.set_per_process_memory_fraction(min(1, trial.limit_bytes / torch.cuda.mem_get_info()[1]))
    start = time.perf_counter()
    try:
        if trial.computation != "loaded":
            take_step(trial, model)
    except (torch.OutOfMemoryError, DoesNotFitError):
        return OVER
    seconds = time.perf_counter() - start
    on_gpu = model.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else highest_resident_bytes()
    return {"status": "ok", "peak_bytes": peak, "seconds": seconds}


def take_step(trial: Trial, model: LanguageModel) -> None:
    """Take one whole meta-step, from encoded tuples to Adam's."""
    layers = edited_layers(model.module, trial.spec.ffn, trial.settings)
    editor = HyperNetworkEditor.create(layers, trial.settings.hypernetwork, seed=0)
    trainer = MetaTrainer(model, editor, trial.settings.training, GRADIENTS[trial.computation])
    trainer.step(encode_group(model, repeated(read_tuples(trial.tuples), trial.n_edits), random.Random(0)))


def repeated(tuples: Sequence[EditTuple], n: int) -> list[EditTuple]:
    """Return the first ``n`` tuples, from the start again where there are fewer."""
    return list(islice(cycle(tuples), n))


if __name__ == "__main__":
    try:
        print(json.dumps(run_trial(Trial.from_json(sys.stdin.read()))))
    except UserError as error:
        sys.exit(str(error))
