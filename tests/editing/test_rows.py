"""Rows in files: the same values as in memory, read back exactly, and nothing left behind."""

import gc
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from tiny_models import encoded_group, ffn_layers
from torch import Tensor

from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.editing import rows as rows_module
from malmen.editing.capture import KeysAndGradients, capture
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.rows import FileRows, RowStore, whole
from malmen.editing.training import EncodedGroup, MetaTrainer
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel

MALMEN = HyperNetworkSettings(rank=6, learning_rate=1e-2, batch_size=16, rows_per_batch=7, graph_bytes=0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of temporary files, empty at first."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def open_files() -> int:
    gc.collect()
    return psutil.Process().num_fds()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_file_gives_back_what_was_written(folder: Path, dtype: torch.dtype) -> None:
    expected = torch.randn(11, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = FileRows(11, 5, dtype, torch.device("cpu"))
    for start, stop in ((7, 11), (0, 3), (3, 7)):
        rows[start:stop] = expected[start:stop]
    assert (len(rows), rows.shape, list(folder.iterdir())) == (11, expected.shape, [])
    assert torch.equal(whole(rows), expected) and torch.equal(rows[4:9], expected[4:9])
    assert all(torch.equal(a, b) for a, b in zip(rows.split(4), expected.split(4), strict=True))


def test_rows_that_were_never_written_are_an_error() -> None:
    rows = FileRows(4, 5, torch.float32, torch.device("cpu"))
    rows[0:2] = torch.ones(2, 5)
    with pytest.raises(EOFError):
        whole(rows)


def test_what_the_system_moves_in_parts_is_moved_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, read_into = os.pwrite, rows_module.read_into
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
    monkeypatch.setattr(rows_module, "read_into", lambda fd, data, offset: read_into(fd, data[:5], offset))
    rows, expected = FileRows(2, 3, torch.float32, torch.device("cpu")), torch.arange(6.0).view(2, 3)
    rows[0:2] = expected
    assert torch.equal(rows[0:2], expected)


@pytest.mark.parametrize("budget, in_memory", [(799, False), (800, True)])
def test_rows_stay_in_memory_up_to_the_budget(budget: int, in_memory: bool) -> None:
    store = RowStore.for_numbers(100, budget, torch.float64, torch.device("cpu"))
    assert isinstance(store.empty(20, 5), Tensor if in_memory else FileRows)


def step_of(
    model: LanguageModel, settings: HyperNetworkSettings, group: EncodedGroup
) -> tuple[dict[str, Tensor], object]:
    """Take a meta-step, and return what the networks hold after it, and its losses."""
    editor = HyperNetworkEditor.create(ffn_layers(model), settings, seed=0)
    editor.networks.double()
    trainer = MetaTrainer(model, editor, TrainingSettings(meta_learning_rate=1e-2))
    trainer.step(group)
    losses = trainer.step(group)
    return editor.networks.state_dict() | editor.shifts(model, group.edit), losses


@pytest.mark.parametrize(
    "changes",
    [{}, {"aggregation": "sum"}, {"tokens": "all"}, {"graph_bytes": 2**28}],
    ids=["malmen", "mend", "all tokens", "kept graphs"],
)
def test_spilled_rows_give_the_same_bits(gpt2: LanguageModel, folder: Path, changes: dict[str, object]) -> None:
    group = encoded_group(gpt2, 40)
    settings = replace(MALMEN, **changes)  # type: ignore[arg-type]
    before = open_files()
    found, losses = step_of(gpt2, replace(settings, rows_bytes=0), group)
    assert (list(folder.iterdir()), open_files()) == ([], before)
    expected, expected_losses = step_of(gpt2, settings, group)
    assert losses == expected_losses
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_spilled_rows_are_those_in_memory_in_every_architecture(model: LanguageModel) -> None:
    edits, layers = encoded_group(model, 10).edit, ffn_layers(model)
    expected = capture(model, layers, edits, replace(MALMEN, tokens="all"))
    for name, spilled in capture(model, layers, edits, replace(MALMEN, tokens="all", rows_bytes=0)).items():
        assert isinstance(spilled.keys, FileRows) and isinstance(expected[name].keys, Tensor)
        assert torch.equal(whole(spilled.keys), whole(expected[name].keys))
        assert torch.equal(whole(spilled.gradients), whole(expected[name].gradients))


def test_an_error_leaves_no_file_behind(gpt2: LanguageModel, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = HyperNetworkEditor.create(ffn_layers(gpt2), replace(MALMEN, rows_bytes=0), seed=0)
    edits = encoded_group(gpt2, 10).edit

    def fail(_captured: dict[str, KeysAndGradients]) -> dict[str, Tensor]:
        raise ZeroDivisionError

    monkeypatch.setattr(editor, "aggregate", fail)
    before = open_files()
    with pytest.raises(ZeroDivisionError) as raised:
        editor.shifts(gpt2, edits)
    del raised
    assert (list(folder.iterdir()), open_files()) == ([], before)


def test_a_disk_with_too_little_space_is_refused_before_anything_is_run(
    gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits, layers = encoded_group(gpt2, 10).edit, ffn_layers(gpt2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    monkeypatch.setattr(gpt2, "in_batches", None)
    with pytest.raises(UserError, match=r"TMPDIR .* rows_bytes"):
        capture(gpt2, layers, edits, replace(MALMEN, rows_bytes=0))


def test_a_disk_that_fills_up_meanwhile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    rows = FileRows(4, 5, torch.float32, torch.device("cpu"))
    with pytest.raises(UserError, match=r"cannot be used \(No space left on device\); set TMPDIR"):
        rows[0:4] = torch.ones(4, 5)
