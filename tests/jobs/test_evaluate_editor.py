"""A measurement that diverges is a result where the experiment expects it, and an error elsewhere."""

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
from malmen.results.run import Run

SETTINGS = FineTuningEditorSettings(label="FT", last_blocks=1, finetuning=FineTuningSettings(learning_rate=math.inf))


def test_divergence(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "tuples.jsonl", map(asdict, edit_tuples("gpt2", 8)))
    directory = save_model(tmp_path / "model", tiny_model("gpt2", torch.float32))
    spec = ModelSpec("tiny", "Tiny", "zsre", "question_answering", "float32", directory, FFN["gpt2"])
    runs, path = [Run(4, 0), Run(8, 0)], tmp_path / "tuples.jsonl"
    with pytest.raises(UserError, match=r"^FT on Tiny, m = 4, seed 0: the loss .* at step 2; set may_diverge"):
        evaluate_editor(spec, EditorSpec("ft", SETTINGS), path, runs, None, Machine())
    expected = EditorSpec("ft", replace(SETTINGS, may_diverge=True))
    metrics, costs = evaluate_editor(spec, expected, path, runs, None, Machine())
    assert [(run.n_edits, run.status, run.groups) for run in metrics.runs] == [(4, "diverged", ()), (8, "diverged", ())]
    assert "is not finite at step 2" in (metrics.runs[0].reason or "") and costs.root == ()
