"""Decoded failures against the model's own forward pass, and against the metrics of the same run."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny_models import FFN, edit_tuples, tiny_model

from malmen.config.finetuning import FineTuningEditorSettings, FineTuningSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.data.tuples import EditTuple
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layers import PostEditWeights, edited_layers
from malmen.errors import UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.evaluate_editor import evaluate_editor
from malmen.jobs.list_failures import list_failures
from malmen.models.language_model import LanguageModel
from malmen.results.answers import Answer, is_right
from malmen.results.failures import FailuresFile
from malmen.results.run import Run

SETTINGS = FineTuningEditorSettings(
    label="FT", last_blocks=2, finetuning=FineTuningSettings(epochs=60, learning_rate=3e-2)
)
RUN = Run(n_edits=12, seed=3)
FT = EditorSpec("ft", SETTINGS)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    model = tiny_model("gpt2", torch.float32)
    folder = tmp_path_factory.mktemp("model")
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return ModelSpec("gpt2", "GPT-2", "zsre", "question_answering", "float32", folder, FFN["gpt2"])


def group() -> list[EditTuple]:
    """Return tuples of which every other asks for its edit three times, so that nothing fails where the edit holds."""
    items = edit_tuples("gpt2", 20)
    easy = [replace(item, equivalent=(item.edit.prompt,), unrelated=item.edit) for item in items]
    return [(item, other)[i % 2] for i, (item, other) in enumerate(zip(items, easy, strict=True))]


@pytest.fixture(scope="module")
def tuples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "validation.jsonl"
    path.write_text("".join(json.dumps(asdict(item)) + "\n" for item in group()))
    return path


@pytest.fixture(scope="module")
def listed(spec: ModelSpec, tuples: Path) -> FailuresFile:
    return list_failures(spec, FT, tuples, RUN, Machine())


def said(model: LanguageModel, prompt: str, target: str) -> tuple[str, bool]:
    """Return the arg max answer under teacher forcing, from whole-sequence logits, and whether it is right."""
    start = model.tokenizer(prompt)["input_ids"]
    answer = model.tokenizer(" " + target, add_special_tokens=False)["input_ids"]
    logits = model.module(input_ids=torch.tensor([start + answer])).logits[0]
    best = logits[len(start) - 1 : -1].argmax(-1).tolist()
    return str(model.tokenizer.decode(best, clean_up_tokenization_spaces=False)), best == answer


def test_answers_are_those_of_the_model_before_and_after_the_edit(spec: ModelSpec, listed: FailuresFile) -> None:
    model = spec.load(Machine())
    editor = FineTuningEditor(edited_layers(model.module, spec.ffn, SETTINGS), SETTINGS.finetuning, RUN.seed)
    edited = group()[: RUN.n_edits]
    shifts = editor.shifts(model, model.encode([item.edit for item in edited]))
    by_id = {record.id: record for record in listed.records}
    assert 0 < len(by_id) < RUN.n_edits
    for record in by_id.values():
        for one in (record.edit, record.equivalent, record.unrelated):
            check(one.before, said(model, one.prompt, one.target))
            with PostEditWeights(editor.layers, shifts).applied():
                check(one.after, said(model, one.prompt, one.target))
    with PostEditWeights(editor.layers, shifts).applied():
        right = [said(model, item.edit.prompt, item.edit.answer)[1] for item in edited]
    assert {item.id for item, correct in zip(edited, right, strict=True) if not correct} <= set(by_id)


def check(answer: Answer, expected: tuple[str, bool]) -> None:
    assert "".join(part.text for part in answer) == expected[0]
    assert is_right(answer) == expected[1]


def test_a_record_is_one_tuple(listed: FailuresFile) -> None:
    items: dict[str, EditTuple] = {item.id: item for item in group()[: RUN.n_edits]}
    for record in listed.records:
        item = items[record.id]
        assert (record.edit.prompt, record.edit.target) == (item.edit.prompt, item.edit.answer)
        assert record.equivalent.prompt in item.equivalent
        assert record.equivalent.target == item.edit.answer
        assert (record.unrelated.prompt, record.unrelated.target) == (item.unrelated.prompt, item.unrelated.answer)


def test_failures_are_those_that_the_metrics_of_the_run_count(
    spec: ModelSpec, tuples: Path, listed: FailuresFile
) -> None:
    measured, *_ = evaluate_editor(spec, FT, tuples, [RUN], {RUN.n_edits: 1}, Machine())
    (metrics,) = measured.runs[0].groups
    failed = [answered.after for record in listed.records for answered in (record.edit, record.equivalent)]
    share = sum(not is_right(answer) for answer in failed) / (2 * RUN.n_edits)
    assert 1 - (metrics.edit_success or 0) == pytest.approx(share)
    assert 0 < share < 1


def test_two_lists_are_equal(spec: ModelSpec, tuples: Path, listed: FailuresFile) -> None:
    assert list_failures(spec, FT, tuples, RUN, Machine()) == listed


def test_a_diverged_training_has_no_failures(spec: ModelSpec, tuples: Path, tmp_path: Path) -> None:
    (tmp_path / RUN.name).mkdir()
    record = {"status": "diverged", "reason": "singular", "losses": []}
    (tmp_path / RUN.name / "training.json").write_text(json.dumps(record))
    editor = EditorSpec("malmen", HyperNetworkEditorSettings(label="MALMEN", last_blocks=2), trained=(tmp_path,))
    with pytest.raises(UserError, match=r"MALMEN on GPT-2 .*: singular"):
        list_failures(spec, editor, tuples, RUN, Machine())


def test_more_edits_than_tuples_are_refused(spec: ModelSpec, tuples: Path) -> None:
    with pytest.raises(UserError, match=r"21 edits .* 20 tuples"):
        list_failures(spec, FT, tuples, Run(21, 0), Machine())
