"""A long training: flat memory, no leaking handles, a log and a state of bounded size."""

import random
from pathlib import Path

import psutil
import pytest
import torch
from reliability import record
from tiny_models import edit_tuples, ffn_layers, tiny_model

from malmen.jobs.job import logged
from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.training import MetaTrainer, draw_groups
from malmen.jobs.train_editor import Training
from malmen.runtime.checkpoint import Checkpoint
from malmen.runtime.progress import progress

STEPS = 2000
WARM_UP = 500


@pytest.mark.faults
def test_thousands_of_steps(tmp_path: Path) -> None:
    model = tiny_model("gpt2", torch.float32)
    editor = HyperNetworkEditor.create(ffn_layers(model), HyperNetworkSettings(rank=6, learning_rate=1e-3), seed=0)
    training = Training(MetaTrainer(model, editor, TrainingSettings(meta_learning_rate=1e-5)), None)
    groups = draw_groups(model, edit_tuples("gpt2", 28), 4, STEPS, random.Random(0))
    checkpoint, process = Checkpoint(tmp_path / "state.safetensors", every_seconds=1), psutil.Process()
    used: list[tuple[int, int]] = []

    with logged(tmp_path / "log.txt"), checkpoint.saving(training.state) as step_taken:

        def taken() -> None:
            step_taken()
            used.append((process.memory_info().rss, process.num_fds()))

        training.take_steps(progress(groups, STEPS, "soaking", every_seconds=1), taken)
    assert len(used) == STEPS and training.reason is None
    growth = used[-1][0] - used[WARM_UP][0]
    assert growth < 32 * 2**20
    assert max(handles for _, handles in used[WARM_UP:]) <= used[WARM_UP][1] + 2
    assert len((tmp_path / "log.txt").read_text()) < 100 * 1000
    record(
        "a long training",
        f"{STEPS} meta-steps on a tiny GPT-2, its state saved every second",
        1,
        f"resident memory after step {WARM_UP} grew by less than 32 MiB; no more open files; log below 100 kB",
    )
