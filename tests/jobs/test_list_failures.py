"""Decoded failures against the model's own forward pass, and against the metrics of the same run."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FFN, edit_tuples, tiny_model, tiny_tokenizer

from malmen.config.base import Architecture
from malmen.config.finetuning import FineTuningEditorSettings, FineTuningSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.data.tuples import EditTuple
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layers import PostEditWeights, edited_layers
from malmen.errors import UserError
from malmen.jobs.common import Machine, ModelSpec, Run, write_json
from malmen.jobs.evaluate_editor import Reporting, evaluate_editor
from malmen.jobs.list_failures import INCOMPLETE, list_failures, pieces
from malmen.models.language_model import LanguageModel

SETTINGS = FineTuningEditorSettings(
    label="FT", last_blocks=2, finetuning=FineTuningSettings(epochs=60, learning_rate=3e-2)
)
RUN = Run(n_edits=12, seed=3)


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
def listed(spec: ModelSpec, tuples: Path) -> dict[str, Any]:
    return list_failures(spec, SETTINGS, None, None, tuples, RUN, Machine())


def said(model: LanguageModel, prompt: str, target: str) -> tuple[str, bool]:
    """Return the arg max answer under teacher forcing, from whole-sequence logits, and whether it is right."""
    start = model.tokenizer(prompt)["input_ids"]
    answer = model.tokenizer(" " + target, add_special_tokens=False)["input_ids"]
    logits = model.module(input_ids=torch.tensor([start + answer])).logits[0]
    best = logits[len(start) - 1 : -1].argmax(-1).tolist()
    return str(model.tokenizer.decode(best, clean_up_tokenization_spaces=False)), best == answer


def test_answers_are_those_of_the_model_before_and_after_the_edit(spec: ModelSpec, listed: dict[str, Any]) -> None:
    model = spec.load(Machine())
    editor = FineTuningEditor(edited_layers(model.module, spec.ffn, SETTINGS), SETTINGS.finetuning, RUN.seed)
    edited = group()[: RUN.n_edits]
    shifts = editor.shifts(model, model.encode([item.edit for item in edited]))
    by_id = {record["id"]: record for record in listed["records"]}
    assert 0 < len(by_id) < RUN.n_edits
    for record in by_id.values():
        for kind in ("edit", "equivalent", "unrelated"):
            one = record[kind]
            check(one["before"], said(model, one["prompt"], one["target"]))
            with PostEditWeights(editor.layers, shifts).applied():
                check(one["after"], said(model, one["prompt"], one["target"]))
    with PostEditWeights(editor.layers, shifts).applied():
        right = [said(model, item.edit.prompt, item.edit.answer)[1] for item in edited]
    assert {item.id for item, correct in zip(edited, right, strict=True) if not correct} <= set(by_id)


def check(answer: list[dict[str, Any]], expected: tuple[str, bool]) -> None:
    assert "".join(piece["text"] for piece in answer) == expected[0]
    assert all(piece["right"] for piece in answer) == expected[1]


def test_a_record_is_one_tuple(listed: dict[str, Any]) -> None:
    items: dict[str, EditTuple] = {item.id: item for item in group()[: RUN.n_edits]}
    for record in listed["records"]:
        item = items[record["id"]]
        assert (record["edit"]["prompt"], record["edit"]["target"]) == (item.edit.prompt, item.edit.answer)
        assert record["equivalent"]["prompt"] in item.equivalent
        assert record["equivalent"]["target"] == item.edit.answer
        unrelated = record["unrelated"]["prompt"], record["unrelated"]["target"]
        assert unrelated == (item.unrelated.prompt, item.unrelated.answer)


def test_failures_are_those_that_the_metrics_of_the_run_count(
    spec: ModelSpec, tuples: Path, listed: dict[str, Any]
) -> None:
    measured, _ = evaluate_editor(spec, SETTINGS, None, None, Reporting(tuples, [RUN], 1), Machine())
    (metrics,) = measured[0]["groups"]
    failed = {
        kind: sum(not all(piece["right"] for piece in record[kind]["after"]) for record in listed["records"])
        for kind in ("edit", "equivalent", "unrelated")
    }
    assert 1 - metrics["edit_success"] == pytest.approx((failed["edit"] + failed["equivalent"]) / (2 * RUN.n_edits))
    assert 0 < metrics["edit_success"] < 1


def test_two_lists_are_equal(spec: ModelSpec, tuples: Path, listed: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "one.json", listed)
    write_json(tmp_path / "two.json", list_failures(spec, SETTINGS, None, None, tuples, RUN, Machine()))
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_a_diverged_training_has_no_failures(spec: ModelSpec, tuples: Path, tmp_path: Path) -> None:
    (tmp_path / RUN.name).mkdir()
    (tmp_path / RUN.name / "training.json").write_text('{"status": "diverged", "reason": "singular"}')
    with pytest.raises(UserError, match="MALMEN on GPT-2 has no failures to list: singular"):
        list_failures(
            spec, HyperNetworkEditorSettings(label="MALMEN", last_blocks=2), tmp_path, None, tuples, RUN, Machine()
        )


def test_more_edits_than_tuples_are_refused(spec: ModelSpec, tuples: Path) -> None:
    with pytest.raises(UserError, match="21 edits at once are more than the 20"):
        list_failures(spec, SETTINGS, None, None, tuples, Run(21, 0), Machine())


@pytest.mark.parametrize("architecture", ["gpt2", "t5", "bart"])
def test_tokens_of_one_character_are_one_piece(architecture: Architecture) -> None:
    tokenizer = tiny_tokenizer(architecture)
    tokens = tokenizer(" é☃a", add_special_tokens=False)["input_ids"]
    assert len(tokens) > 3 + 1
    whole = pieces(tokenizer, tokens, tokens)
    assert [piece.text for piece in whole if piece.text.strip()] == ["é", "☃", "a"]
    snowman = len(tokens) - 4  # its first of three bytes; "a" follows them
    cut = pieces(tokenizer, tokens, [*tokens[:snowman], -1, *tokens[snowman + 1 :]])
    assert [piece.text for piece in cut if not piece.right] == ["☃"]
    broken = pieces(tokenizer, tokens[: snowman + 1], tokens[: snowman + 1])
    assert broken[-1].text == INCOMPLETE
