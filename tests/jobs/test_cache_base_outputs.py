"""The step that computes what runs share: jobs come to the same with it, and what is too large is refused."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import FFN, edit_tuples, save_model, tiny_model

from malmen.config.hypernetwork import (
    HyperNetworkEditorSettings,
    HyperNetworkSettings,
    RolloutSettings,
    TrainingSettings,
)
from malmen.data.tuples import write_jsonl
from malmen.errors import UserError
from malmen.jobs.cache_base_outputs import write_cache
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.evaluate_editor import evaluate_editor
from malmen.jobs.train_editor import train_editors
from malmen.results.run import Run
from malmen.results.training import TrainingFile

SETTINGS = HyperNetworkEditorSettings(
    label="MALMEN",
    last_blocks=2,
    hypernetwork=HyperNetworkSettings(rank=6, learning_rate=1e-3, batch_size=5),
    training=TrainingSettings(max_steps=2),
)
RUNS = [Run(4, 0), Run(6, 1)]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A tiny GPT-2 in float32, with tuples beside it."""
    folder = tmp_path_factory.mktemp("cache")
    save_model(folder / "model", tiny_model("gpt2", torch.float32))
    write_jsonl(folder / "train.jsonl", [asdict(item) for item in edit_tuples("gpt2", 14)])
    return ModelSpec("gpt2", "GPT-2", "zsre", "question_answering", "float32", folder / "model", FFN["gpt2"])


def tuples(spec: ModelSpec) -> Path:
    return spec.directory.parent / "train.jsonl"


def test_jobs_come_to_the_same(spec: ModelSpec, tmp_path: Path) -> None:
    write_cache(spec, SETTINGS, tuples(spec), tmp_path / "cache", 1.0, Machine())
    found = []
    for name, cache in (("plain", None), ("cached", tmp_path / "cache")):
        train_editors(spec, SETTINGS, tuples(spec), RUNS, tmp_path / name, Machine(), cache=cache)
        editor = EditorSpec("malmen", SETTINGS, trained=(tmp_path / name,))
        found.append(evaluate_editor(spec, editor, tuples(spec), RUNS, {}, Machine(), cache=cache)[0].runs)
    for one, other in zip(*found, strict=True):
        assert len(one.groups) == len(other.groups) > 1
        for plain, cached in zip(one.groups, other.groups, strict=True):
            assert cached.model_dump() == pytest.approx(plain.model_dump(), rel=1e-3)
    for run in RUNS:
        plain, cached = (load_file(tmp_path / name / run.name / "editor.safetensors") for name in ("plain", "cached"))
        for name, tensor in plain.items():
            assert (cached[name] - tensor).norm() <= 1e-4 * tensor.norm(), name
        losses = [
            TrainingFile.read(tmp_path / name / run.name / "training.json").losses for name in ("plain", "cached")
        ]
        assert losses[1][0].locality == pytest.approx(losses[0][0].locality, rel=1e-3)


def test_a_rollout_takes_nothing_from_a_cache(spec: ModelSpec, tmp_path: Path) -> None:
    write_cache(spec, SETTINGS, tuples(spec), tmp_path / "cache", 1.0, Machine())
    settings = replace(SETTINGS, training=TrainingSettings(rollout=RolloutSettings(1, 3, rounds_per_step=1)))
    for name, cache in (("plain", None), ("cached", tmp_path / "cache")):
        train_editors(spec, settings, tuples(spec), RUNS[:1], tmp_path / name, Machine(), cache=cache)
    for file in ("editor.safetensors", "training.json"):
        plain, cached = (tmp_path / name / RUNS[0].name / file for name in ("plain", "cached"))
        assert plain.read_bytes() == cached.read_bytes()


def test_two_caches_are_the_same_bytes(spec: ModelSpec, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_cache(spec, SETTINGS, tuples(spec), tmp_path / name, 1.0, Machine())
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_a_cache_for_other_layers_is_refused(spec: ModelSpec, tmp_path: Path) -> None:
    write_cache(spec, replace(SETTINGS, last_blocks=1), tuples(spec), tmp_path / "cache", 1.0, Machine())
    with pytest.raises(UserError, match="cannot be read as a cache"):
        train_editors(spec, SETTINGS, tuples(spec), RUNS, tmp_path / "out", Machine(), cache=tmp_path / "cache")


def test_a_cache_that_is_too_large_is_refused_with_its_size(spec: ModelSpec, tmp_path: Path) -> None:
    message = (
        r"holds keys and value gradients of 14 edits, hidden states of \d+ prompts: 0\.00 GB in float32, more than "
    )
    with pytest.raises(UserError, match=message + r"cache\.max_gb \(1e-06\)"):
        write_cache(spec, SETTINGS, tuples(spec), tmp_path / "cache", 1e-6, Machine())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_hold_it_is_refused(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"in float32, but the disk has 0\.00 GB left"):
        write_cache(spec, SETTINGS, tuples(spec), tmp_path / "cache", 1.0, Machine())


def test_a_run_that_takes_more_tuples_than_are_cached_says_so(spec: ModelSpec, tmp_path: Path) -> None:
    write_cache(spec, SETTINGS, tuples(spec), tmp_path / "cache", 1.0, Machine(), n_tuples=8)
    train_editors(spec, SETTINGS, tuples(spec), [Run(4, 0)], tmp_path / "editors", Machine())
    editor = EditorSpec("malmen", SETTINGS, trained=(tmp_path / "editors",))
    shown = evaluate_editor(spec, editor, tuples(spec), [Run(4, 0)], {4: 2}, Machine(), cache=tmp_path / "cache")
    assert len(shown[0].runs[0].groups) == 2
    with pytest.raises(UserError, match="add its m to n_edits"):
        evaluate_editor(spec, editor, tuples(spec), [Run(4, 0)], {}, Machine(), cache=tmp_path / "cache")
