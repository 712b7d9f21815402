"""Peak memory of one meta-step, separated or concatenated, each measured in a fresh process (Figure 9).

``python -m malmen.jobs.measure_memory`` is such a process: it reads a :class:`Trial` from standard input as JSON and
writes a :class:`malmen.results.memory.MemoryPoint` to standard output as JSON.
"""

import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import cycle, islice, product
from pathlib import Path

import psutil
import torch
from pydantic import TypeAdapter

from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.data.tuples import EditTuple, read_tuples
from malmen.editing.concatenated import meta_gradient_concatenated
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import MetaTrainer, encode_group, meta_gradient
from malmen.errors import DoesNotFitError, UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.models.language_model import LanguageModel
from malmen.results.memory import Computation, MemoryFile, MemoryPoint
from malmen.runtime.process_stats import highest_resident_bytes
from malmen.runtime.progress import logger

GRADIENTS = {"separated": meta_gradient, "concatenated": meta_gradient_concatenated}


@dataclass(frozen=True)
class Trial:
    """The task of one process.

    Attributes:
        spec: the model.
        settings: the editor, which is not trained.
        tuples: file of training tuples, which repeat if a group needs more.
        computation: what to measure.
        n_edits: the number of edits m; 0 to load the model only.
        limit_bytes: the largest size of the process; None for no limit.
        machine: where to run.
    """

    spec: ModelSpec
    settings: HyperNetworkEditorSettings
    tuples: Path
    computation: Computation
    n_edits: int
    limit_bytes: int | None
    machine: Machine

    def point(self, peak_bytes: int | None = None, seconds: float | None = None) -> MemoryPoint:
        """Return the result: peak memory and time, or neither if the process exceeds the limit."""
        return MemoryPoint(
            computation=self.computation,
            n_edits=self.n_edits,
            status="ok" if peak_bytes else "over the limit",
            peak_bytes=peak_bytes,
            seconds=seconds,
        )


TRIAL = TypeAdapter(Trial)
"""Converts a trial to JSON and back."""


def measure_memory(
    spec: ModelSpec,
    editors: Mapping[Computation, HyperNetworkEditorSettings],
    tuples: Path,
    n_edits: Sequence[int],
    limit_bytes: int | None,
    machine: Machine,
) -> MemoryFile:
    """Measure the loaded model, then each computation at each m, one after the other, each in a process of its own.

    Args:
        spec: the model.
        editors: the editor of each computation.
        tuples: a file of training tuples.
        n_edits: the numbers of edits m.
        limit_bytes: the largest size of a process; None for no limit.
        machine: where to run.

    Raises:
        UserError: if a process fails for another reason than the limit, or the limit is too low for the model alone.
    """
    loaded = Trial(spec, next(iter(editors.values())), tuples, "loaded", 0, limit_bytes, machine)
    steps = product(editors.items(), sorted(n_edits))
    trials = [loaded, *(replace(loaded, computation=c, settings=editor, n_edits=m) for (c, editor), m in steps)]
    return MemoryFile(
        model=spec.name,
        model_label=spec.label,
        device=machine.device,
        limit_bytes=limit_bytes,
        points=tuple(map(measure, trials)),
    )


def measure(trial: Trial) -> MemoryPoint:
    """Run a trial in a process of its own, and log its peak.

    Raises:
        UserError: if the process fails for another reason than its limit, or the limit does not even hold the model.
    """
    point = run_apart(trial)
    if trial.computation == "loaded" and point.peak_bytes is None:
        raise UserError(f"The memory limit of {trial.limit_bytes} bytes does not hold the model alone; raise it.")
    peak = f"{point.peak_bytes / 2**20:.0f} MiB" if point.peak_bytes else point.status
    logger.info("%s, m = %d: %s", trial.computation, trial.n_edits, peak)
    return point


def run_apart(trial: Trial) -> MemoryPoint:
    """Run a trial in a fresh process; end it as soon as its resident memory exceeds the limit (on a CPU)."""
    command = [sys.executable, "-m", "malmen.jobs.measure_memory"]
    # The child has a process group of its own: Ctrl-C reaches only the parent, which then ends the child.
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as process,
        ExitStack() as stack,
    ):
        stack.callback(process.kill)
        assert process.stdin and process.stdout
        process.stdin.write(TRIAL.dump_json(trial))
        process.stdin.close()
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            if trial.machine.device == "cpu" and resident_bytes(watched) > (trial.limit_bytes or sys.maxsize):
                return trial.point()
            time.sleep(0.01)
        if process.returncode:
            raise UserError(
                f"A meta-step ({trial.computation}, m = {trial.n_edits}) ended with status {process.returncode}; "
                "if this machine ran out of memory, set a limit below its memory."
            )
        return MemoryPoint.model_validate_json(process.stdout.read())


def resident_bytes(process: psutil.Process) -> int:
    """Return the resident size of a process, 0 once it has ended."""
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def run_trial(trial: Trial) -> MemoryPoint:
    """Take the step in this process, and return this process's peak memory and the time of the step."""
    model = trial.spec.load(trial.machine)
    on_gpu = model.device.type == "cuda"
    if on_gpu and trial.limit_bytes:
        torch.cuda.set_per_process_memory_fraction(min(1, trial.limit_bytes / torch.cuda.mem_get_info()[1]))
    start = time.perf_counter()
    try:
        if trial.computation != "loaded":
            take_step(trial, model)
    except (torch.OutOfMemoryError, DoesNotFitError):
        return trial.point()
    seconds = time.perf_counter() - start
    return trial.point(torch.cuda.max_memory_allocated() if on_gpu else highest_resident_bytes(), seconds)


def take_step(trial: Trial, model: LanguageModel) -> None:
    """Take one whole meta-step, from encoded tuples to Adam's step."""
    layers = trial.spec.layers(model, trial.settings)
    editor = HyperNetworkEditor.create(layers, trial.settings.hypernetwork, seed=0)
    trainer = MetaTrainer(model, editor, trial.settings.training, GRADIENTS[trial.computation])
    trainer.step(encode_group(model, repeated(read_tuples(trial.tuples), trial.n_edits), random.Random(0)))


def repeated(tuples: Sequence[EditTuple], n: int) -> list[EditTuple]:
    """Return the first ``n`` tuples; they repeat if there are fewer."""
    return list(islice(cycle(tuples), n))


if __name__ == "__main__":
    request = sys.stdin.read()
    if not request:  # the job was ended before it sent the trial
        sys.exit(1)
    try:
        print(run_trial(TRIAL.validate_json(request)).model_dump_json())
    except UserError as error:
        sys.exit(str(error))
