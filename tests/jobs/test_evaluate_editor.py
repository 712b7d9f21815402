"""The job that measures an editor: an edit that diverges, and one reading of the model for all its hashes."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny_models import FFN, edit_tuples, save_model, tiny_model

from malmen.config.finetuning import FineTuningEditorSettings, FineTuningSettings
from malmen.data.tuples import write_jsonl
from malmen.errors import UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.evaluate_editor import evaluate_editor
from malmen.models.identity import weights_digest
from malmen.provenance.recording import artefact
from malmen.results.run import Run
from malmen.runtime import files

SETTINGS = FineTuningEditorSettings(label="FT", last_blocks=1, finetuning=FineTuningSettings(learning_rate=math.inf))


def test_divergence(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "tuples.jsonl", map(asdict, edit_tuples("gpt2", 8)))
    directory = save_model(tmp_path / "model", tiny_model("gpt2", torch.float32))
    spec = ModelSpec("tiny", "Tiny", "zsre", "question_answering", "float32", directory, FFN["gpt2"])
    runs, path = [Run(4, 0), Run(8, 0)], tmp_path / "tuples.jsonl"
    with pytest.raises(UserError, match=r"^FT on Tiny, m = 4, seed 0: the loss .* at step 2; set may_diverge"):
        evaluate_editor(spec, EditorSpec("ft", SETTINGS), path, runs, {}, Machine())
    expected = EditorSpec("ft", replace(SETTINGS, may_diverge=True))
    metrics, costs, _ = evaluate_editor(spec, expected, path, runs, {}, Machine())
    assert [(run.n_edits, run.status, run.groups) for run in metrics.runs] == [(4, "diverged", ()), (8, "diverged", ())]
    assert "is not finite at step 2" in (metrics.runs[0].reason or "") and costs.root == ()


def test_a_job_hashes_its_model_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]) -> None:
    write_jsonl(tmp_path / "tuples.jsonl", map(asdict, edit_tuples("gpt2", 4)))
    directory = save_model(tmp_path / "model", tiny_model("gpt2", torch.float32))
    monkeypatch.setattr(files, "SETTLED_SECONDS", 0.0)
    weights = weights_digest(directory)
    spec = ModelSpec("tiny", "Tiny", "zsre", "question_answering", "float32", directory, FFN["gpt2"], sha256=weights)
    editor = EditorSpec("ft", FineTuningEditorSettings(label="FT", last_blocks=1))
    evaluate_editor(spec, editor, tmp_path / "tuples.jsonl", [Run(4, 0)], {}, Machine())
    artefact(str(directory))  # the job's record
    assert reads.count(str(directory / "model.safetensors")) == 1
