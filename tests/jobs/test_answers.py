"""The answers that an evaluation keeps, against the metrics of the same run and against the lists of failures."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tiny_models import FFN, edit_tuples, save_model, tiny_model, tiny_tokenizer

from malmen.config.base import Architecture, TaskName
from malmen.config.finetuning import FineTuningEditorSettings, FineTuningSettings
from malmen.data.tuples import read_tuples, write_jsonl
from malmen.jobs.answers import INCOMPLETE, answer_parts
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.evaluate_editor import evaluate_editor
from malmen.jobs.list_failures import list_failures
from malmen.models.tasks import FACT_LABELS
from malmen.results.answers import Answer, AnswersFile, is_right
from malmen.results.metrics import MetricsFile
from malmen.results.run import Run, runs

RUNS = runs([2, 4], [3, 5])
N = 12


def measured(architecture: Architecture, folder: Path, n_answers: int) -> tuple[MetricsFile, AnswersFile]:
    """Measure fine-tuning that takes some of its edits, on all groups of 12 tuples."""
    write_jsonl(folder / "tuples.jsonl", map(asdict, edit_tuples(architecture, N)))
    settings = FineTuningEditorSettings(
        label="FT", last_blocks=2, finetuning=FineTuningSettings(epochs=20, learning_rate=3e-2)
    )
    spec, editor = spec_of(architecture, folder), EditorSpec("ft", settings)
    metrics, _, answers = evaluate_editor(
        spec, editor, folder / "tuples.jsonl", RUNS, {}, Machine(), n_answers=n_answers
    )
    return metrics, answers


def spec_of(architecture: Architecture, folder: Path) -> ModelSpec:
    directory = save_model(folder / "model", tiny_model(architecture, torch.float32))
    task: TaskName = "fact_checking" if architecture == "bert" else "question_answering"
    return ModelSpec("tiny", "Tiny", "zsre", task, "float32", directory, FFN[architecture])


def share(answers: list[Answer]) -> float:
    """Return the share of answers that are right as a whole."""
    return sum(map(is_right, answers)) / len(answers)


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
def test_the_metrics_count_the_answers(architecture: Architecture, tmp_path: Path) -> None:
    metrics, answers = measured(architecture, tmp_path, N)
    asked = {one.seed: one.tuples for one in answers.asked}
    assert [(run.n_edits, run.seed) for run in answers.runs] == [(run.n_edits, run.seed) for run in RUNS]
    seen = set()
    for run, said in zip(metrics.runs, answers.runs, strict=True):
        assert len(said.answers) == N
        for number, group in enumerate(run.groups):
            own = slice(number * run.n_edits, (number + 1) * run.n_edits)
            after, before = said.answers[own], asked[run.seed][own]
            edited = [answer for one in after for answer in (one.edit, one.equivalent)]
            assert share(edited) == pytest.approx(group.edit_success)
            lost = share([one.unrelated.before for one in before]) - share([one.unrelated for one in after])
            assert lost == pytest.approx(group.drawdown)
            if architecture == "bert":  # an answer is a single label
                for name, kind in (("ES", "edit"), ("GS", "equivalent"), ("LS", "unrelated")):
                    assert share([getattr(one, kind) for one in after]) == pytest.approx(getattr(group, name))
                    first = [getattr(one, kind).before for one in before]
                    assert share(first) == pytest.approx(getattr(group, f"pre_{name}"))
            seen |= {is_right(answer) for answer in edited}
    assert seen == {True, False}


def test_a_fact_checker_answers_with_labels(tmp_path: Path) -> None:
    _, answers = measured("bert", tmp_path, N)
    for one in answers.asked[0].tuples:
        for prompt in (one.edit, one.equivalent, one.unrelated):
            (part,) = prompt.before
            assert part.text in FACT_LABELS and part.right == (part.text == prompt.target)


def test_the_first_tuples_are_kept_in_every_run(tmp_path: Path) -> None:
    metrics, answers = measured("gpt2", tmp_path, 3)
    metrics.write(tmp_path / "some.json")
    others, all_answers = measured("gpt2", tmp_path, N)
    others.write(tmp_path / "all.json")
    assert (tmp_path / "some.json").read_bytes() == (tmp_path / "all.json").read_bytes()
    for some, more in zip(answers.asked, all_answers.asked, strict=True):
        assert (some.seed, some.tuples) == (more.seed, more.tuples[:3])
    assert [run.answers for run in answers.runs] == [run.answers[:3] for run in all_answers.runs]
    items = read_tuples(tmp_path / "tuples.jsonl")
    for one in all_answers.asked:
        for item, asked in zip(items, one.tuples, strict=True):
            assert (asked.id, asked.edit.prompt, asked.edit.target) == (item.id, item.edit.prompt, item.edit.answer)
            assert asked.equivalent.prompt in item.equivalent and asked.equivalent.target == item.edit.answer
            assert (asked.unrelated.prompt, asked.unrelated.target) == (item.unrelated.prompt, item.unrelated.answer)


def test_the_answers_are_those_of_the_list_of_failures(tmp_path: Path) -> None:
    _, answers = measured("gpt2", tmp_path, N)
    settings = FineTuningEditorSettings(
        label="FT", last_blocks=2, finetuning=FineTuningSettings(epochs=20, learning_rate=3e-2)
    )
    run = Run(4, 5)
    path = tmp_path / "tuples.jsonl"
    failures = list_failures(spec_of("gpt2", tmp_path), EditorSpec("ft", settings), path, run, Machine())
    asked = next(one.tuples for one in answers.asked if one.seed == run.seed)[:4]
    (said,) = [one.answers[:4] for one in answers.runs if (one.n_edits, one.seed) == (run.n_edits, run.seed)]
    wrong = [one.id for one, after in zip(asked, said, strict=True) if not all(map(is_right, after))]
    assert [record.id for record in failures.records] == wrong != []
    for record in failures.records:
        place = [one.id for one in asked].index(record.id)
        assert (record.edit.before, record.edit.after) == (asked[place].edit.before, said[place].edit)


@pytest.mark.parametrize("architecture", ["gpt2", "t5", "bart"])
def test_tokens_of_one_character_are_one_piece(architecture: Architecture) -> None:
    tokenizer = tiny_tokenizer(architecture)

    def text(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False))

    tokens = tokenizer(" é☃a", add_special_tokens=False)["input_ids"]
    assert len(tokens) > 3 + 1
    whole = answer_parts(text, tokens, tokens)
    assert [part.text for part in whole if part.text.strip()] == ["é", "☃", "a"]
    snowman = len(tokens) - 4  # its first of three bytes; "a" follows them
    cut = answer_parts(text, tokens, [*tokens[:snowman], -1, *tokens[snowman + 1 :]])
    assert [part.text for part in cut if not part.right] == ["☃"]
    broken = answer_parts(text, tokens[: snowman + 1], tokens[: snowman + 1])
    assert broken[-1].text == INCOMPLETE
