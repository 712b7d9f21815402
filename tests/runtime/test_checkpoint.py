"""Interrupted work goes on from its saved state and ends with the very bytes of work that was not interrupted."""

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import ARCHITECTURES, ENTRIES, SHAPES, edit_tuples, save_model, tiny_model

from malmen.config.architectures import TASK_OF
from malmen.config.base import Architecture
from malmen.config.finetuning import FineTuningEditorSettings
from malmen.config.hypernetwork import (
    HyperNetworkEditorSettings,
    HyperNetworkSettings,
    RolloutSettings,
    TrainingSettings,
)
from malmen.config.model_registry import read_registry
from malmen.config.optimisation import OptimisationSettings
from malmen.data.tuples import write_dataset
from malmen.errors import InterruptedJobError, UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.evaluate_editor import evaluate_editor
from malmen.jobs.finetune_model import finetune_model
from malmen.jobs.pretrain_model import pretrain_model
from malmen.jobs.train_editor import train_editors
from malmen.results.run import Run
from malmen.runtime.checkpoint import Checkpoint, Saving, State, restore_rng_states, rng_states
from malmen.runtime.peak_memory import PeakMemory

QUICK = OptimisationSettings(epochs=2, batch_size=8, learning_rate=1e-3)
EDITOR = HyperNetworkEditorSettings(
    label="MALMEN",
    last_blocks=2,
    hypernetwork=HyperNetworkSettings(rank=6, learning_rate=0.1),
    training=TrainingSettings(meta_learning_rate=1e-3, max_steps=4),
)
RUNS = [Run(4, 0), Run(5, 1)]
GROUPS = {4: 2, 5: 2}


class Killed(BaseException):
    """Stands for ``kill -9``: nothing catches it."""


@contextmanager
def killed_behind_save(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[None]:
    """Let the work die right behind the save with this number, counted from 1."""
    write, count = Checkpoint.write, 0

    def write_and_die(checkpoint: Checkpoint, state: State) -> None:
        nonlocal count
        write(checkpoint, state)
        count += 1
        if count == number:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoint, "write", write_and_die)
        yield


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def data(tmp_path: Path) -> Callable[[Architecture], Path]:
    """Write a data set for an architecture."""

    def write(architecture: Architecture) -> Path:
        tuples = edit_tuples(architecture, 28)
        folder = tmp_path / "data"
        splits = {"train": tuples[:16], "tune": [], "validation": tuples[16:]}
        lines = [[item.edit.prompt, *item.equivalent] for item in tuples]
        write_dataset(folder, splits, [item.edit for item in tuples[:20]], lines)
        return folder

    return write


def spec(architecture: Architecture, folder: Path) -> ModelSpec:
    """Save a tiny model, and describe it as steps take it."""
    directory = save_model(folder, tiny_model(architecture, torch.float32))
    ffn = read_registry()[ENTRIES[architecture]]["ffn"]
    return ModelSpec("tiny", "Tiny", "fever", TASK_OF[architecture], "float32", directory, ffn)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("saves", [1, 4])
def test_pretraining_goes_on(
    architecture: Architecture,
    saves: int,
    data: Callable[[Architecture], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, shape, saving = data(architecture) / "text.txt", SHAPES[architecture], Saving(tmp_path / "state", 0)
    pretrain_model("Tiny", text, shape, QUICK, 0, tmp_path / "whole", Machine())
    with killed_behind_save(monkeypatch, saves):
        pretrain_model("Tiny", text, shape, QUICK, 0, tmp_path / "resumed", Machine(), saving)
    assert not (tmp_path / "resumed").exists()
    pretrain_model("Tiny", text, shape, QUICK, 0, tmp_path / "resumed", Machine(), saving)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")
    saving.clear()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_fine_tuning_goes_on(
    architecture: Architecture,
    data: Callable[[Architecture], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pairs, model = data(architecture) / "finetune.jsonl", spec(architecture, tmp_path / "model")
    saving = Saving(tmp_path / "state", 0)
    finetune_model(model, pairs, QUICK, 0, tmp_path / "whole", Machine())
    with killed_behind_save(monkeypatch, 3):
        finetune_model(model, pairs, QUICK, 0, tmp_path / "resumed", Machine(), saving)
    with caplog.at_level("INFO", "malmen"):
        finetune_model(model, pairs, QUICK, 0, tmp_path / "resumed", Machine(), saving)
    assert any("Tiny" in said and "resuming after 3 of 6 steps" in said for said in caplog.messages)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("saves", [2, 4, 5, 7, 9])  # within a run, at its end, behind it, and behind the last one
def test_training_editors_goes_on(
    architecture: Architecture,
    saves: int,
    data: Callable[[Architecture], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, model = data(architecture) / "train.jsonl", spec(architecture, tmp_path / "model")
    saving = Saving(tmp_path / "state", 0)
    settings = replace(
        EDITOR, hypernetwork=replace(EDITOR.hypernetwork, aggregation="sum" if saves == 7 else "least_squares")
    )
    train_editors(model, settings, train, RUNS, tmp_path / "whole", Machine())
    with killed_behind_save(monkeypatch, saves):
        train_editors(model, settings, train, RUNS, tmp_path / "resumed", Machine(), saving)
    assert not (tmp_path / "resumed").exists()
    train_editors(model, settings, train, RUNS, tmp_path / "resumed", Machine(), saving)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")
    saving.clear()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("saves", [3, 4, 6])  # within a sequence, at its end, and in the next one
@pytest.mark.parametrize("rounds_per_step", ["all", 1])
def test_training_with_a_rollout_goes_on(
    saves: int,
    rounds_per_step: Any,
    data: Callable[[Architecture], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, model = data("gpt2") / "train.jsonl", spec("gpt2", tmp_path / "model")
    rollout = RolloutSettings(2, 4, back_depth=2, rounds_per_step=rounds_per_step, l2_gradient=True)
    settings = replace(EDITOR, training=TrainingSettings(meta_learning_rate=1e-3, rollout=rollout))
    saving = Saving(tmp_path / "state", 0)
    train_editors(model, settings, train, RUNS, tmp_path / "whole", Machine())
    with killed_behind_save(monkeypatch, saves):
        train_editors(model, settings, train, RUNS, tmp_path / "resumed", Machine(), saving)
    train_editors(model, settings, train, RUNS, tmp_path / "resumed", Machine(), saving)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


def test_the_peak_of_the_part_before_an_interruption_counts(
    data: Callable[[Architecture], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, model, saving = data("gpt2") / "train.jsonl", spec("gpt2", tmp_path / "model"), Saving(tmp_path / "s", 0)
    with killed_behind_save(monkeypatch, 2), monkeypatch.context() as patch:
        patch.setattr(PeakMemory, "update", lambda memory: setattr(memory, "peak_bytes", 2**50))
        train_editors(model, EDITOR, train, RUNS, tmp_path / "out", Machine(), saving)
    first, second = train_editors(model, EDITOR, train, RUNS, tmp_path / "out", Machine(), saving).root
    assert first.peak_bytes == 2**50 > second.peak_bytes > 0


@pytest.mark.parametrize("saves", [1, 3, 4])
def test_measuring_goes_on(
    saves: int, data: Callable[[Architecture], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuples, model = data("gpt2") / "validation.jsonl", spec("gpt2", tmp_path / "model")
    settings = FineTuningEditorSettings(label="FT", last_blocks=2)
    editor, saving = EditorSpec("ft", settings), Saving(tmp_path / "state", 0)
    whole = evaluate_editor(model, editor, tuples, RUNS, GROUPS, Machine(), n_answers=5)
    with killed_behind_save(monkeypatch, saves):
        evaluate_editor(model, editor, tuples, RUNS, GROUPS, Machine(), saving, n_answers=5)
    resumed = evaluate_editor(model, editor, tuples, RUNS, GROUPS, Machine(), saving, n_answers=5)
    costs = resumed[1]
    for place in (0, 2):  # metrics and answers
        whole[place].write(tmp_path / "whole.json")
        resumed[place].write(tmp_path / "resumed.json")
        assert (tmp_path / "resumed.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert [cost.run for cost in costs.root] == RUNS and all(cost.seconds > 0 for cost in costs.root)


def test_a_divergence_is_kept_like_any_result(
    data: Callable[[Architecture], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, model, saving = data("gpt2") / "train.jsonl", spec("gpt2", tmp_path / "model"), Saving(tmp_path / "s", 0)
    settings = replace(EDITOR, may_diverge=True, hypernetwork=replace(EDITOR.hypernetwork, regularised=False))
    train_editors(model, settings, train, RUNS, tmp_path / "whole", Machine())
    with killed_behind_save(monkeypatch, 1):
        train_editors(model, settings, train, RUNS, tmp_path / "resumed", Machine(), saving)
    train_editors(model, settings, train, RUNS, tmp_path / "resumed", Machine(), saving)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")
    assert b"diverged at step 1" in contents(tmp_path / "resumed")["m4_seed0/training.json"]


def test_a_divergence_that_is_an_error_says_where_what_was_learned_before_it_is(
    data: Callable[[Architecture], Path], tmp_path: Path
) -> None:
    train, model, saving = data("gpt2") / "train.jsonl", spec("gpt2", tmp_path / "model"), Saving(tmp_path / "s", 0)
    settings = replace(EDITOR, hypernetwork=replace(EDITOR.hypernetwork, regularised=False))
    with pytest.raises(UserError, match=r"diverged at step 1: .* lower its learning rates \(its last state is "):
        train_editors(model, settings, train, RUNS, tmp_path / "out", Machine(), saving)
    assert (tmp_path / "s" / "m4_seed0.safetensors").is_file()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first(
    signal_number: signal.Signals,
    data: Callable[[Architecture], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train, model = data("gpt2") / "train.jsonl", spec("gpt2", tmp_path / "model")
    saving = Saving(tmp_path / "state", 1e9)
    handler = signal.getsignal(signal_number)

    def encode_and_send(*arguments: object) -> object:
        os.kill(os.getpid(), signal_number)  # in the midst of a step
        return original(*arguments)  # type: ignore[arg-type]

    from malmen.editing import training  # noqa: PLC0415 (to be patched)

    original = training.encode_group
    train_editors(model, EDITOR, train, RUNS, tmp_path / "whole", Machine())
    with monkeypatch.context() as patch:
        patch.setattr(training, "encode_group", encode_and_send)
        with pytest.raises(InterruptedJobError, match=f"{signal_number.name}.*saved"):
            train_editors(model, EDITOR, train, RUNS, tmp_path / "resumed", Machine(), saving)
    assert signal.getsignal(signal_number) is handler
    with caplog.at_level("INFO", "malmen"):
        train_editors(model, EDITOR, train, RUNS, tmp_path / "resumed", Machine(), saving)
    assert "MALMEN on Tiny, m = 4, seed 0: resuming after 1 of 4" in caplog.messages
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("change", ["settings", "data", "weights", "threads", "code"])
def test_a_state_of_something_else_is_not_used(
    change: str,
    data: Callable[[Architecture], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train, model = data("gpt2") / "train.jsonl", spec("gpt2", tmp_path / "model")
    saving, settings, machine = Saving(tmp_path / "state", 0), EDITOR, Machine()
    with killed_behind_save(monkeypatch, 2):
        train_editors(model, settings, train, RUNS, tmp_path / "out", machine, saving)
    if change == "settings":
        settings = replace(EDITOR, training=replace(EDITOR.training, locality_coefficient=2.0))
    elif change == "data":
        train.write_text("".join(reversed(train.read_text().splitlines(keepends=True))))
    elif change == "weights":
        save_model(tmp_path / "model", tiny_model("gpt2", torch.float32, seed=1))
    elif change == "threads":
        machine = Machine(threads=2)
    else:
        monkeypatch.setattr("malmen.runtime.checkpoint.code_digest", lambda *modules: f"other {modules}")
    with caplog.at_level("INFO", "malmen"):
        train_editors(model, settings, train, RUNS, tmp_path / "out", machine, saving)
    torch.set_num_threads(1)
    assert len([message for message in caplog.messages if "ignoring" in message]) == 1
    assert not any("resuming" in message for message in caplog.messages)


BREAKS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "other": lambda _: b"no state",
    "cut": lambda whole: whole[:-4],
    "lacking": lambda whole: whole.replace(b"values", b"volume"),
}


@pytest.mark.parametrize("broken", BREAKS.values(), ids=BREAKS)
def test_a_broken_state_is_not_used(
    broken: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path / "state.safetensors", "It")
    checkpoint.write(State({"a": torch.ones(3)}, {"steps": 3}))
    found = checkpoint.read()
    assert found and found.values == {"steps": 3} and torch.equal(found.tensors["a"], torch.ones(3))
    path = tmp_path / "state.safetensors"
    path.write_bytes(broken(path.read_bytes()))
    with caplog.at_level("INFO", "malmen"):
        assert checkpoint.read() is None
    assert len(caplog.messages) == 1 and "cannot be read" in caplog.messages[0]


def test_running_work_is_saved_at_intervals_only(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    for seconds, saved in ((1e9, False), (0, True)):
        with Checkpoint(path, every_seconds=seconds).saving(lambda: State(values={})) as step_taken:
            step_taken()
        assert path.is_file() == saved


def saving_below(folder: Path, *names: str) -> Saving:
    return Saving(folder.joinpath("results", "state", *names))


def write_state(saving: Saving) -> Checkpoint:
    assert saving.folder
    checkpoint = Checkpoint(saving.folder / "m4_seed0.safetensors")
    checkpoint.write(State({"a": torch.ones(3)}))
    return checkpoint


def test_emptied_folders_of_states_go_with_the_last_job(tmp_path: Path) -> None:
    taught, edited = saving_below(tmp_path, "models", "gpt2", "finetuned"), saving_below(tmp_path, "editors", "gpt2")
    kept = write_state(taught)
    write_state(edited)
    edited.clear()
    assert [path.name for path in (tmp_path / "results" / "state").iterdir()] == ["models"] and kept.read()
    taught.clear()
    taught.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["results"] and not list((tmp_path / "results").iterdir())


def test_folders_that_another_job_removes_as_empty_are_made_again(tmp_path: Path) -> None:
    jobs = [saving_below(tmp_path, "editors", "gpt2", name, "m4_seed0") for name in "ab"]

    def work(saving: Saving) -> bool:
        saved = []
        for _ in range(300):
            saved.append(write_state(saving).read() is not None)
            saving.clear()
        return all(saved)

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(work, jobs)) == [True, True]


def test_sources_of_random_numbers_go_on() -> None:
    numbers, generator = random.Random(3), torch.Generator().manual_seed(3)
    numbers.gauss(0, 1)
    states = json.loads(json.dumps(rng_states([numbers, generator])))
    expected = numbers.random(), torch.rand(3, generator=generator).tolist()
    restore_rng_states([numbers, generator], states)
    assert (numbers.random(), torch.rand(3, generator=generator).tolist()) == expected
