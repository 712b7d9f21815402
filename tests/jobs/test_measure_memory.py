"""Measuring memory: real processes with a tiny model, and what is done with those that take too much."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
import torch
from tiny_models import FFN, edit_tuples, save_model, tiny_model

from malmen.config.hypernetwork import HyperNetworkEditorSettings, HyperNetworkSettings
from malmen.data.tuples import write_jsonl
from malmen.errors import UserError
from malmen.jobs import measure_memory as memory
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.measure_memory import TRIAL, Trial, measure, measure_memory, repeated, run_apart
from malmen.models.batching import whole_in_memory
from malmen.results.memory import Computation

MALMEN = HyperNetworkEditorSettings(label="MALMEN", last_blocks=2, hypernetwork=HyperNetworkSettings(rank=6))
MEND = replace(MALMEN, hypernetwork=HyperNetworkSettings(rank=6, aggregation="sum"))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """A trial that only loads a tiny GPT-2."""
    folder = tmp_path_factory.mktemp("memory")
    save_model(folder / "model", tiny_model("gpt2", torch.float32))
    write_jsonl(folder / "train.jsonl", [asdict(item) for item in edit_tuples("gpt2", 12)])
    ffn = FFN["gpt2"]
    spec = ModelSpec("gpt2", "GPT-2", "zsre", "question_answering", "float32", folder / "model", ffn)
    return Trial(spec, MALMEN, folder / "train.jsonl", "loaded", 0, None, Machine())


def test_a_trial_is_read_back_as_it_was(loaded: Trial) -> None:
    trial = replace(loaded, settings=MEND, computation="concatenated", n_edits=8, limit_bytes=10**9)
    assert TRIAL.validate_json(TRIAL.dump_json(trial)) == trial


def test_every_step_runs_in_a_process_of_its_own(loaded: Trial) -> None:
    editors: dict[Computation, HyperNetworkEditorSettings] = {"separated": MALMEN, "concatenated": MEND}
    content = measure_memory(loaded.spec, editors, loaded.tuples, [16], 2**34, loaded.machine)
    assert (content.model, content.model_label, content.limit_bytes) == ("gpt2", "GPT-2", 2**34)
    names = [(point.computation, point.n_edits, point.status) for point in content.points]
    assert names == [("loaded", 0, "ok"), ("separated", 16, "ok"), ("concatenated", 16, "ok")]
    peaks = [point.peak_bytes or 0 for point in content.points]
    assert all(2**26 < peak < 2**34 for peak in peaks)
    assert all((point.seconds or 0) >= 0 for point in content.points)
    assert peaks[0] <= min(peaks[1:]) + 2**23


def test_what_exceeds_the_limit_is_ended_and_recorded(loaded: Trial) -> None:
    trial = replace(loaded, computation="separated", n_edits=4, limit_bytes=2**24)
    point = measure(trial)
    assert (point.computation, point.n_edits, point.status) == ("separated", 4, "over the limit")
    assert (point.peak_bytes, point.seconds) == (None, None)
    with pytest.raises(UserError, match=str(2**24)):
        measure(replace(loaded, limit_bytes=2**24))


def test_a_process_that_fails_otherwise_is_an_error(loaded: Trial) -> None:
    absent = replace(loaded, spec=replace(loaded.spec, directory=Path("absent")))
    with pytest.raises(UserError, match=r"loaded, m = 0\) ended with status 1"):
        run_apart(absent)


INTERRUPTED = """
import sys
from pathlib import Path
from malmen.jobs.job import logged
from malmen.jobs.measure_memory import TRIAL, run_apart

with logged(Path("log")):
    run_apart(TRIAL.validate_json(sys.argv[1]))
"""


def test_an_interruption_is_one_sentence_and_ends_the_process_that_is_measured(loaded: Trial, tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, TRIAL.dump_json(loaded).decode()]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, process_group=0) as job:
        while not (measured := psutil.Process(job.pid).children()):
            assert job.poll() is None
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGINT)  # as Ctrl-C does
        _, said = job.communicate(timeout=60)
    assert job.returncode == 1 and re.fullmatch(r"  Error: .*SIGINT.*\.\n", said)
    assert not measured[0].is_running()


def test_a_gpu_that_is_full_is_over_the_limit(loaded: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_trial: Trial, _model: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(memory, "take_step", full)
    assert memory.run_trial(replace(loaded, computation="separated", n_edits=4)).status == "over the limit"


def test_a_gpu_that_does_not_even_hold_a_part_is_over_the_limit(loaded: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_model: object, _tuples: object, _rng: object) -> None:
        with whole_in_memory("The normal equation"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(memory, "encode_group", full)
    assert memory.run_trial(replace(loaded, computation="separated", n_edits=4)).status == "over the limit"


def test_tuples_are_repeated_where_there_are_too_few() -> None:
    tuples = edit_tuples("gpt2", 3)
    assert [item.id for item in repeated(tuples, 7)] == ["q0", "q1", "q2", "q0", "q1", "q2", "q0"]
    assert repeated(tuples, 2) == tuples[:2]
