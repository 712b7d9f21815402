"""The ``malmen`` command, and what ``malmen edit`` writes, on tiny models."""

import json
import runpy
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from own_facts_files import (
    save_editor,
    save_key_covariance,
    write_facts,
    write_facts_for_memit,
    write_lines,
    write_unrelated,
)
from safetensors.torch import load_file, save_file
from tiny_models import FFN, NAMES, edit_tuples, encoded_group, ffn_layers, save_model, spread_attention, tiny_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from typer.main import get_command
from typer.testing import CliRunner, Result

from malmen.cli import app
from malmen.config.architectures import TASK_OF
from malmen.config.base import Architecture
from malmen.config.finetuning import FineTuningSettings
from malmen.config.memit import MemitSettings
from malmen.data.tuples import EditTuple
from malmen.editing.editor_file import read_editor_file
from malmen.editing.evaluation import Evaluation
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layers import EditedLayer, PostEditWeights, Shifts
from malmen.editing.memit.covariance import KeyCovariance, write_key_covariance
from malmen.editing.memit.editor import MemitEditor
from malmen.editing.training import encode_edits
from malmen.models import hub
from malmen.models.fact_checker import FactChecker
from malmen.models.identity import weights_digest
from malmen.models.load import load_model
from malmen.own_facts.editors import LEARNED
from malmen.own_facts.methods import FineTuning

N = 24
"""Facts in a file; the tiny tuples begin to repeat after 28."""


@pytest.fixture(autouse=True)
def forget_determinism() -> Any:
    """The command makes torch deterministic; leave it as it was for other tests."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def prepare(folder: Path, architecture: Architecture) -> Path:
    """Save a model, an editor trained for it, facts and unrelated questions into a folder."""
    model = tiny_model(architecture, torch.float32)
    if architecture == "bert":  # It would call everything true, or everything false.
        (batch,) = model.batches(encoded_group(model, N).edit, N)
        list(model.module.parameters())[-1].sub_(model.answer_logits(batch).mean())  # The head's bias.
    save_model(folder / "model", model)
    save_editor(folder / "editor.safetensors", model, folder / "model")
    write_facts(folder / "facts.jsonl", architecture, N)
    write_unrelated(folder / "unrelated.jsonl", architecture, N)
    return folder


@pytest.fixture
def gpt2_files(tmp_path: Path) -> Path:
    return prepare(tmp_path, "gpt2")


def edit(folder: Path, *more: str, **replaced: str) -> Result:
    """Run ``malmen edit`` in a folder; ``replaced`` are options other than the usual ones."""
    options = {"model": "model", "editor": "editor.safetensors", "facts": "facts.jsonl", "out": "out"} | replaced
    paths = {
        name: value if value in ("ft", "memit", "lab/model") else str(folder / value) for name, value in options.items()
    }
    arguments = [part for name, value in paths.items() for part in (f"--{name}", value)]
    return CliRunner().invoke(app, ["edit", *arguments, "--device", "cpu", *more])


def report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    return content


def one_rephrasing(tuples: Sequence[EditTuple]) -> list[EditTuple]:
    """Leave one equivalent prompt each, so that there is nothing to draw."""
    return [EditTuple(item.id, item.edit, item.equivalent[:1], item.unrelated) for item in tuples]


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "t5"])
def test_the_written_model_is_base_plus_shift_and_the_report_is_the_evaluations(
    tmp_path: Path, architecture: Architecture
) -> None:
    folder = prepare(tmp_path, architecture)
    result = edit(folder, unrelated="unrelated.jsonl")
    assert result.exit_code == 0, result.output
    model = load_model(folder / "model", TASK_OF[architecture])
    editor = read_editor_file(folder / "editor.safetensors", ffn_layers(model))
    tuples = one_rephrasing(edit_tuples(architecture, N))
    expected = Evaluation(model, tuples, 32, seed=0).run(editor, slice(0, N)).metrics
    metrics, by_text = report(folder)["metrics"], report(folder)["by_text"]
    if architecture != "bert":
        assert metrics.pop("by_text") == by_text["right"] / by_text["asked"] and by_text["asked"] == N
        assert metrics.pop("pre_by_text") == 0
        assert f"{by_text['right']} of {N} facts answered when asked freely" in result.output
    assert set(metrics) == {"ES", "GS", "LS", "pre_ES", "pre_GS", "pre_LS", "agreement"}
    assert metrics == pytest.approx({name: expected[name] for name in metrics}, abs=1e-12)
    assert expected["ES"] > expected["pre_ES"] and 0 < expected["agreement"] < 1

    assert_written(folder, editor.layers, editor.shifts(model, model.encode([item.edit for item in tuples])))


def assert_written(folder: Path, layers: Sequence[EditedLayer], shifts: Shifts) -> None:
    """Assert that the written weights are those of the model, with these shifts of these layers and no other."""
    before, after = (load_file(folder / name / "model.safetensors") for name in ("model", "out"))
    edited = PostEditWeights(layers, shifts).edited
    by_name = {f"{layer.name}.weight": weight for layer, weight in zip(layers, edited, strict=True)}
    assert before.keys() == after.keys() > by_name.keys()
    assert all(torch.equal(after[name], by_name.get(name, before[name])) for name in after)
    assert not any(torch.equal(after[name], before[name]) for name in by_name)


def test_plain_transformers_loads_the_edited_model(gpt2_files: Path) -> None:
    assert edit(gpt2_files).exit_code == 0
    module = AutoModelForCausalLM.from_pretrained(gpt2_files / "out")
    tokenizer = AutoTokenizer.from_pretrained(gpt2_files / "out")
    answers = report(gpt2_files)["answers"]
    assert len(answers) == N and any(answer["before"] != answer["after"] for answer in answers)
    for answer, item in zip(answers, edit_tuples("gpt2", N), strict=True):
        assert (answer["prompt"], answer["answer"]) == (item.edit.prompt, item.edit.answer)
        prompt = tokenizer(item.edit.prompt)["input_ids"]
        target = tokenizer(" " + item.edit.answer)["input_ids"]
        with torch.no_grad():
            logits = module(input_ids=torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        assert str(tokenizer.decode(logits.argmax(-1), skip_special_tokens=True)).strip() == answer["after"]
        assert (logits.argmax(-1) == torch.tensor(target)).double().mean().item() == answer["correct"]


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_plain_transformers_loads_an_edited_encoder_decoder(tmp_path: Path, architecture: Architecture) -> None:
    """Prompt and answer are encoded as the pretrained models' own tokenizers encode them; their marks are no answer."""
    folder = prepare(tmp_path, architecture)
    assert edit(folder).exit_code == 0
    module: Any = AutoModelForSeq2SeqLM.from_pretrained(folder / "out")
    tokenizer = AutoTokenizer.from_pretrained(folder / "out")
    answers = report(folder)["answers"]
    assert len(answers) == N and any(answer["before"] != answer["after"] for answer in answers)
    n_before = {"t5": 0, "bart": 1}[architecture]  # <s> before the answer; both put one mark behind it.
    for answer in answers:
        labels = tokenizer(answer["answer"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = module(input_ids=tokenizer(answer["prompt"], return_tensors="pt")["input_ids"], labels=labels)[1]
        said, wanted = logits[0].argmax(-1)[n_before:-1], labels[0, n_before:-1]
        assert str(tokenizer.decode(said.tolist(), skip_special_tokens=True)).strip() == answer["after"]
        assert (said == wanted).double().mean().item() == answer["correct"]


TUNING = {"gpt2": "0.1", "t5": "0.03", "bart": "0.03"}
"""Learning rates that make fine-tuning teach a tiny model some of its facts."""


@pytest.mark.parametrize("architecture", ["gpt2", "t5", "bart"])
def test_the_example_finds_the_facts_that_the_report_calls_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], architecture: Architecture
) -> None:
    folder = prepare(tmp_path, architecture)
    layers = [part for pattern in FFN[architecture]["second"] for part in ("--layers", pattern)]
    result = edit(folder, *layers, "--epochs", "30", "--learning-rate", TUNING[architecture], editor="ft")
    assert result.exit_code == 0, result.output
    answered = sum(answer["correct"] == 1 for answer in report(folder)["answers"])
    assert answered > 0
    monkeypatch.setattr(sys, "argv", ["ask.py", *(str(folder / name) for name in ("model", "out", "facts.jsonl"))])
    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "ask.py"))
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == [f"before: 0 of {N} right", f"after: {answered} of {N} right"]


def test_an_edited_fact_checker_answers_as_reported(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "bert")
    assert edit(folder).exit_code == 0
    module: Any = FactChecker.from_pretrained(folder / "out")
    tokenizer = AutoTokenizer.from_pretrained(folder / "out")
    for answer in report(folder)["answers"]:
        with torch.no_grad():
            log_odds = module(**tokenizer(answer["prompt"], return_tensors="pt"))
        assert answer["after"] == ("SUPPORTS" if log_odds.item() > 0 else "REFUTES")


def test_the_precision_of_the_model_is_kept(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "gpt2")
    model = tiny_model("gpt2", torch.bfloat16)
    save_model(folder / "model", model)
    save_editor(folder / "editor.safetensors", model, folder / "model")
    result = edit(folder)
    assert result.exit_code == 0, result.output
    before, after = (load_file(folder / name / "model.safetensors") for name in ("model", "out"))
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    assert not all(torch.equal(after[name], before[name]) for name in before)


def test_an_editor_trained_in_another_precision_is_refused_unless_the_model_is_loaded_in_it(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "gpt2")
    model = tiny_model("gpt2", torch.float32)
    save_editor(folder / "editor.safetensors", model, folder / "model", dtype="bfloat16")
    message = refusal(folder)
    assert all(fact in message for fact in ("'tiny'", "bfloat16", str(folder / "model"), "float32"))
    assert not (folder / "out").exists()
    result = edit(folder, "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    assert {tensor.dtype for tensor in load_file(folder / "out" / "model.safetensors").values()} == {torch.bfloat16}


def test_fine_tuning_tunes_the_named_layers(gpt2_files: Path) -> None:
    pattern = r"transformer\.h\.\d+\.mlp\.c_proj"
    result = edit(gpt2_files, "--layers", pattern, "--last-blocks", "2", "--learning-rate", "0.01", editor="ft")
    assert result.exit_code == 0, result.output
    model = load_model(gpt2_files / "model", "question_answering")
    editor = FineTuningEditor(ffn_layers(model), FineTuningSettings(FineTuning.epochs, learning_rate=0.01), 0, LEARNED)
    shifts = editor.shifts(model, model.encode([item.edit for item in edit_tuples("gpt2", N)]))
    after = load_file(gpt2_files / "out" / "model.safetensors")
    for layer, edited in zip(editor.layers, PostEditWeights(editor.layers, shifts).edited, strict=True):
        assert torch.equal(after[f"{layer.name}.weight"], edited)
    assert report(gpt2_files)["trained_for"] is None


MEMIT = MemitSettings(steps=3, prefix_starts=("The", "A"), prefix_tokens=4, covariance_weight=3.0, batch_size=5)


@pytest.fixture
def memit_files(gpt2_files: Path) -> Path:
    """Save a model that MEMIT can edit, with the covariance of keys in its first two blocks, facts and settings."""
    model = spread_attention(tiny_model("gpt2", torch.float32))
    save_model(gpt2_files / "model", model)
    write_facts_for_memit(gpt2_files / "facts.jsonl", N)
    save_key_covariance(gpt2_files / "c.safetensors", model, ffn_layers(model, last=3)[:2], gpt2_files / "model")
    (gpt2_files / "memit.json").write_text(json.dumps(asdict(MEMIT)), encoding="utf-8")
    return gpt2_files


def test_memit_edits_the_layers_whose_covariance_is_given(memit_files: Path) -> None:
    result = edit(
        memit_files, "--memit-settings", str(memit_files / "memit.json"), editor="memit", covariance="c.safetensors"
    )
    assert result.exit_code == 0, result.output
    assert f"{N // 2} of {N} edits, which state none" in result.stderr
    model = load_model(memit_files / "model", "question_answering")
    layers = ffn_layers(model, last=3)[:2]
    tuples = [replace(item, subject=NAMES[i % 7] if i % 2 else None) for i, item in enumerate(edit_tuples("gpt2", N))]
    covariance = KeyCovariance.open(memit_files / "c.safetensors", layers)
    shifts = MemitEditor(layers, MEMIT, covariance, seed=0).shifts(model, encode_edits(model, tuples))
    assert_written(memit_files, layers, shifts)
    assert report(memit_files)["covariance"] == str(memit_files / "c.safetensors")
    assert "Editor: MEMIT" in (memit_files / "out" / "report.md").read_text(encoding="utf-8")


def test_only_what_can_be_measured_is_reported(gpt2_files: Path) -> None:
    write_facts(gpt2_files / "facts.jsonl", "gpt2", N, rephrasings=0)
    result = edit(gpt2_files)
    assert set(report(gpt2_files)["metrics"]) == {"ES", "by_text", "pre_ES", "pre_by_text", "agreement"}
    assert report(gpt2_files)["counts"] == {"facts": N, "rephrasings": 0, "unrelated": 50}
    assert "edit success" in result.output and "locality success" not in result.output
    page = (gpt2_files / "out" / "report.md").read_text(encoding="utf-8")
    assert f"# {N} facts edited" in page and "trained for 20 edits, seed 3" in page
    assert edit_tuples("gpt2", 1)[0].edit.prompt in page


def in_easyedits_form(n: int) -> list[dict[str, Any]]:
    """Return the tiny tuples as EasyEdit writes them, each with its unrelated prompt."""
    return [
        {
            "prompt": item.edit.prompt,
            "target_new": item.edit.answer,
            "ground_truth": "something else",
            "rephrase_prompt": item.equivalent[0],
            "locality_prompt": item.unrelated.prompt,
            "locality_ground_truth": item.unrelated.answer,
        }
        for item in edit_tuples("gpt2", n)
    ]


def test_facts_of_other_tools_are_edited_with_their_own_unrelated_prompts(gpt2_files: Path) -> None:
    records = [*in_easyedits_form(12), {"prompt": "Who is Ada?", "target_new": 7}]
    facts = write_lines(gpt2_files / "easy.jsonl", records)
    assert f"{facts}, line 13: 'target_new' must be" in refusal(gpt2_files, facts="easy.jsonl")
    result = edit(gpt2_files, "--skip-bad", facts="easy.jsonl")
    assert result.exit_code == 0, result.output
    found = report(gpt2_files)
    assert found["read"] == {"format": "EasyEdit and KnowEdit", "answer": "target_new", "records": 13, "skipped": 1}
    assert found["unrelated"] == found["facts"] == str(facts) and "LS" in found["metrics"]
    page = (gpt2_files / "out" / "report.md").read_text(encoding="utf-8")
    assert "EasyEdit and KnowEdit; the answers are 'target_new', without 1 record that does not fit" in page
    assert "of the same records" in page
    write_facts(gpt2_files / "few.jsonl", "gpt2", 12)
    different = list({item.unrelated: None for item in edit_tuples("gpt2", 12)})
    write_lines(gpt2_files / "others.jsonl", [asdict(pair) for pair in different])
    assert edit(gpt2_files, "--force", facts="few.jsonl", unrelated="others.jsonl").exit_code == 0
    assert report(gpt2_files)["metrics"] == found["metrics"] and report(gpt2_files)["counts"] == found["counts"]


def test_the_true_answers_can_be_edited_from_standard_input(gpt2_files: Path) -> None:
    content = json.dumps(in_easyedits_form(3))
    paths = {"model": gpt2_files / "model", "editor": gpt2_files / "editor.safetensors", "out": gpt2_files / "out"}
    arguments = [part for name, value in paths.items() for part in (f"--{name}", str(value))]
    command = ["edit", *arguments, "--facts", "-", "--answers", "true", "--device", "cpu"]
    result = CliRunner().invoke(app, command, input=content)
    assert result.exit_code == 0, result.output
    found = report(gpt2_files)
    assert (found["facts"], found["read"]["answer"]) == ("standard input", "ground_truth")
    assert {answer["answer"] for answer in found["answers"]} == {"something else"}
    result = CliRunner().invoke(app, [*command, "--unrelated", "-"], input=content)
    assert result.exit_code == 1 and "cannot both be standard input" in result.output


def test_the_same_edit_is_the_same_bytes(gpt2_files: Path) -> None:
    assert edit(gpt2_files).exit_code == edit(gpt2_files, out="again").exit_code == 0
    first, again = ({f.name: f.read_bytes() for f in (gpt2_files / name).iterdir()} for name in ("out", "again"))
    assert first == again


def test_more_facts_than_trained_for_are_warned_of(gpt2_files: Path) -> None:
    warning = f"{N} facts at once are more than the 20 that the editor was trained for: expect fewer"
    result = edit(gpt2_files)
    assert warning in result.stderr and "in rounds of at most 20 (--rounds)" in result.stderr
    assert warning in (gpt2_files / "out" / "report.md").read_text(encoding="utf-8")
    write_facts(gpt2_files / "few.jsonl", "gpt2", 20)
    assert "more than" not in edit(gpt2_files, facts="few.jsonl", out="few").stderr


def test_rounds_and_a_delta_alone_are_options(gpt2_files: Path) -> None:
    result = edit(gpt2_files, "--rounds", "2", "--delta-only")
    assert result.exit_code == 0, result.output
    assert report(gpt2_files)["rounds"] == 2
    assert {path.name for path in (gpt2_files / "out").iterdir()} == {
        "edit.delta",
        "report.html",
        "report.json",
        "report.md",
    }
    assert "more than" not in result.stderr  # 12 facts at once, of an editor for 20
    assert f"{N} facts" in refusal(gpt2_files, "--rounds", "99", out="other")
    assert "force" in refusal(gpt2_files)


def test_batches_change_nothing_but_rounding(gpt2_files: Path) -> None:
    assert edit(gpt2_files).exit_code == edit(gpt2_files, "--batch-size", "5", out="small").exit_code == 0
    base, large, small = (load_file(gpt2_files / name / "model.safetensors") for name in ("model", "out", "small"))
    for name in large:
        assert (large[name] - small[name]).norm() <= 1e-3 * (large[name] - base[name]).norm()


def refusal(folder: Path, *more: str, **replaced: str) -> str:
    """Return why an edit is refused: one sentence, exit code 1, and nothing written."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = edit(folder, *more, **replaced)
    assert result.exit_code == 1, result.output
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert line.endswith(".") and "Traceback" not in result.output
    return line


def test_an_editor_for_another_model_is_refused(gpt2_files: Path) -> None:
    other = tiny_model("gpt2", torch.float32, seed=1)
    save_model(gpt2_files / "other", other)
    line = refusal(gpt2_files, model="other")
    digests = [weights_digest(gpt2_files / name)[:12] for name in ("model", "other")]
    assert all(fact in line for fact in ("'tiny'", str(gpt2_files / "other"), *digests))


def test_memit_is_refused_another_models_covariance(memit_files: Path) -> None:
    other = tiny_model("gpt2", torch.float32, seed=1)
    save_model(memit_files / "other", other)
    line = refusal(memit_files, model="other", editor="memit", covariance="c.safetensors")
    assert all(fact in line for fact in ("c.safetensors", "'tiny'", weights_digest(memit_files / "other")[:12]))
    write_key_covariance(memit_files / "old.safetensors", {"a": torch.eye(2)}, {"model": "tiny", "tokens": 9})
    assert "old.safetensors" in refusal(memit_files, editor="memit", covariance="old.safetensors")
    assert "facts.jsonl" in refusal(memit_files, editor="memit", covariance="facts.jsonl")


def test_memit_is_refused_facts_of_which_nothing_tells_the_subject(memit_files: Path) -> None:
    facts = write_lines(memit_files / "bare.jsonl", [{"prompt": "Who is Ada?", "answer": "Bo"}])
    line = refusal(memit_files, editor="memit", covariance="c.safetensors", facts="bare.jsonl")
    assert f"{facts}, line 1: " in line and "'subject'" in line
    write_lines(facts, [{"prompt": "Where did Cleo write one film?", "answer": "Cor", "subject": "Cleo"}])
    assert edit(memit_files, editor="memit", covariance="c.safetensors", facts="bare.jsonl").exit_code == 0


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_memit_is_refused_models_that_do_not_continue_prompts(tmp_path: Path, architecture: Architecture) -> None:
    folder = prepare(tmp_path, architecture)
    line = refusal(folder, editor="memit", covariance="c.safetensors")
    assert str(folder / "model") in line and TASK_OF[architecture] in line


def test_an_unknown_setting_of_memit_is_named(memit_files: Path) -> None:
    (memit_files / "memit.json").write_text("step: 3", encoding="utf-8")
    line = refusal(
        memit_files, "--memit-settings", str(memit_files / "memit.json"), editor="memit", covariance="c.safetensors"
    )
    assert "memit.json: step is not a known key; known are steps, learning_rate, " in line


def test_an_editor_that_cannot_be_used_is_refused(gpt2_files: Path) -> None:
    for name in ("none.safetensors", "model", "facts.jsonl"):
        assert str(gpt2_files / name) in refusal(gpt2_files, editor=name)
    model = tiny_model("gpt2", torch.float32)
    save_editor(gpt2_files / "bad.safetensors", model, gpt2_files / "model", "training diverged at step 2: a loss")
    assert "training diverged at step 2: a loss" in refusal(gpt2_files, editor="bad.safetensors")
    header = json.dumps({"settings": {}, "layers": [], "about": {"model": "tiny", "n_edits": 20}})
    save_file({"weight": torch.zeros(2)}, gpt2_files / "old.safetensors", metadata={"malmen_editor": header})
    assert "old.safetensors" in refusal(gpt2_files, editor="old.safetensors")


def test_a_model_that_is_none_is_refused(gpt2_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert str(gpt2_files / "none") in refusal(gpt2_files, model="none")
    line = refusal(gpt2_files, model="lab/model")
    assert "no directory lab/model" in line and "main" in line and "HF_HUB_OFFLINE" in line
    assert "'main'" in refusal(gpt2_files, "--revision", "main")
    (gpt2_files / "empty").mkdir()
    assert str(gpt2_files / "empty") in refusal(gpt2_files, model="empty")


def test_a_fact_that_the_model_cannot_read_is_named(gpt2_files: Path) -> None:
    facts = write_lines(
        gpt2_files / "long.jsonl", [{"prompt": "a", "answer": "b"}, {"prompt": "b " * 99, "answer": "b"}]
    )
    assert f"{facts}, line 2: " in (line := refusal(gpt2_files, facts="long.jsonl")) and "tokens" in line


def test_a_label_that_is_none_is_named(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "bert")
    facts = write_lines(folder / "bad.jsonl", [{"prompt": "Ada sings.", "answer": "TRUE"}])
    assert f"{facts}, line 1: " in (line := refusal(folder, facts="bad.jsonl"))
    assert "allowed are SUPPORTS and REFUTES" in line


SUBJECTS = [
    {"prompt": "When was the Holm’s Prize founded?", "answer": "Cor", "subject": "Holm's Prize"},
    {"prompt": "who directed lost harbour?", "answer": "Est", "subject": "Lost Harbour"},
    {"prompt": "Where is Bo?", "answer": "Avaria", "subject": "Zoé"},
]


def test_a_subject_that_is_not_used_refuses_nothing(memit_files: Path) -> None:
    facts = [{**fact, "prompt": f"{fact['prompt']} {i}"} for i in range(4) for fact in SUBJECTS]
    path = memit_files / "subjects.json"
    path.write_text(json.dumps(facts, indent=2), encoding="utf-8")
    result = edit(memit_files, facts="subjects.json", editor="ft", out="tuned")
    assert result.exit_code == 0, result.output
    assert sum("4 subjects" in line for line in result.stderr.splitlines()) == 1
    line = refusal(memit_files, facts="subjects.json", editor="memit", covariance="c.safetensors")
    assert "4 problems in 12 facts" in line
    path.write_text(json.dumps([fact for fact in facts if fact["subject"] != "Zoé"]), encoding="utf-8")
    assert edit(memit_files, facts="subjects.json", editor="memit", covariance="c.safetensors").exit_code == 0


def test_a_bert_without_a_head_is_refused(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "bert")
    tensors = load_file(folder / "model" / "model.safetensors")
    headless = {name: tensor for name, tensor in tensors.items() if not name.startswith("fact_head.")}
    save_file(headless, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    line = refusal(folder, editor="ft")
    assert str(folder / "model") in line and "base_finetuning" in line


def test_a_malformed_line_is_named(gpt2_files: Path) -> None:
    (gpt2_files / "bad.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt":\n', encoding="utf-8")
    assert "bad.jsonl, line 2: not valid JSON" in refusal(gpt2_files, facts="bad.jsonl")
    assert "bad.jsonl, line 2: not valid JSON" in refusal(gpt2_files, unrelated="bad.jsonl")


def test_fine_tuning_refuses_layers_that_the_model_does_not_have(gpt2_files: Path) -> None:
    assert r"'no\.thing'" in refusal(gpt2_files, "--layers", r"no\.thing", editor="ft")
    assert r"'a\\.('" in refusal(gpt2_files, "--layers", r"a\.(", editor="ft")


def test_fine_tuning_tunes_the_last_layer_of_each_block_unless_told_otherwise(gpt2_files: Path) -> None:
    layers = "--layers", r"transformer\.h\.\d+\.mlp\.c_proj"
    assert edit(gpt2_files, editor="ft").exit_code == edit(gpt2_files, *layers, editor="ft", out="named").exit_code == 0
    default, named = (load_file(gpt2_files / name / "model.safetensors") for name in ("out", "named"))
    assert all(torch.equal(default[name], named[name]) for name in named)


@pytest.mark.parametrize(
    ("editor", "option"),
    [
        ("editor.safetensors", ("--layers", "x")),
        ("editor.safetensors", ("--seed", "1")),
        ("editor.safetensors", ("--memit-settings", "m.yaml")),
        ("ft", ("--covariance", "c.safetensors")),
        ("ft", ("--text", "t.txt")),
        ("editor.safetensors", ("--text-tokens", "9")),
        ("memit", ("--epochs", "5")),
    ],
)
def test_an_option_of_another_editor_is_refused(gpt2_files: Path, editor: str, option: tuple[str, str]) -> None:
    assert option[0] in refusal(gpt2_files, *option, editor=editor)


@pytest.mark.parametrize("place", ["trained", "trained/m64_seed0", "trained/malmen/m2-64_seed0/m64_seed0"])
@pytest.mark.parametrize("name", ["editor.safetensors", "mine.safetensors"])
def test_an_editor_is_found_in_its_folder_and_below_it(gpt2_files: Path, place: str, name: str) -> None:
    folder = gpt2_files / place
    folder.mkdir(parents=True)
    (gpt2_files / "editor.safetensors").rename(folder / name)
    save_file({"a": torch.ones(1)}, folder / "other.safetensors")
    (folder / "broken.safetensors").write_text("x", encoding="utf-8")
    assert edit(gpt2_files, editor="trained").exit_code == 0
    assert report(gpt2_files)["editor"] == str(folder / name)


def test_several_editors_in_a_folder_are_named(gpt2_files: Path) -> None:
    for name in ("m2_seed0", "m64_seed0"):
        (gpt2_files / "trained" / name).mkdir(parents=True)
        (gpt2_files / "trained" / name / "editor.safetensors").write_bytes(b"")
    line = refusal(gpt2_files, editor="trained")
    assert all(str(Path("trained") / name) in line for name in ("m2_seed0", "m64_seed0"))


@pytest.mark.parametrize(
    "option", [("--learning-rate", "nan"), ("--learning-rate", "inf"), ("--last-blocks", "0"), ("--epochs", "-1")]
)
def test_a_number_out_of_range_is_named(gpt2_files: Path, option: tuple[str, str]) -> None:
    result = edit(gpt2_files, *option, editor="ft")
    assert result.exit_code != 0 and "Traceback" not in result.output
    assert option[0].lstrip("-").partition("-")[0] in result.output and not (gpt2_files / "out").exists()


def test_an_edit_that_diverges_writes_nothing(gpt2_files: Path) -> None:
    line = refusal(gpt2_files, "--layers", r".*c_proj", "--learning-rate", "1e30", editor="ft")
    assert "not finite at step" in line


def test_what_is_there_is_not_overwritten(gpt2_files: Path) -> None:
    assert str(gpt2_files / "facts.jsonl") in refusal(gpt2_files, out="facts.jsonl")
    assert str(gpt2_files / "model") in refusal(gpt2_files, "--force", out="model")
    assert str(gpt2_files / "model") in refusal(gpt2_files, "--force", out=".")
    (gpt2_files / "full").mkdir()
    (gpt2_files / "full" / "thesis.txt").write_text("years", encoding="utf-8")
    assert str(gpt2_files / "full") in refusal(gpt2_files, "--force", out="full")
    (gpt2_files / "out").mkdir()
    assert edit(gpt2_files).exit_code == 0
    assert str(gpt2_files / "out") in (line := refusal(gpt2_files)) and "force" in line
    write_facts(gpt2_files / "few.jsonl", "gpt2", 3)
    assert edit(gpt2_files, "--force", facts="few.jsonl").exit_code == 0
    assert report(gpt2_files)["counts"]["facts"] == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said(gpt2_files: Path) -> None:
    assert "'cuda'" in refusal(gpt2_files, "--device", "cuda")


def test_an_unknown_device_is_named_with_the_known_ones(gpt2_files: Path) -> None:
    assert "'gpu'" in (line := refusal(gpt2_files, "--device", "gpu")) and "auto, cpu, cuda" in line


def test_every_option_is_described() -> None:
    command: Any = get_command(app)
    for name, subcommand in command.commands.items():
        undescribed = [parameter.name for parameter in subcommand.params if not parameter.help]
        assert not undescribed, (name, undescribed)


def test_the_package_runs_as_a_module_and_knows_its_version() -> None:
    run = subprocess.run([sys.executable, "-m", "malmen", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"malmen {version('malmen-reproduction')}\n"


def test_help_has_every_command_with_an_example_and_needs_no_torch() -> None:
    result = CliRunner().invoke(app, ["--help"])
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert names and all(f"  malmen {name}" in result.output for name in names)
    check = "import sys, malmen.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_settings_of_memit_that_lie_where_the_model_goes_are_kept(memit_files: Path) -> None:
    (memit_files / "out").mkdir()
    (memit_files / "out" / "report.json").write_text("{}", encoding="utf-8")
    settings = (memit_files / "memit.json").rename(memit_files / "out" / "memit.json")
    message = refusal(
        memit_files, "--force", "--memit-settings", str(settings), editor="memit", covariance="c.safetensors"
    )
    assert str(settings) in message and settings.is_file()


def test_files_that_are_not_there_are_named(memit_files: Path) -> None:
    assert str(memit_files / "nothing.jsonl") in refusal(memit_files, facts="nothing.jsonl")
    settings = ("--memit-settings", str(memit_files / "nothing.yaml"))
    assert settings[1] in refusal(memit_files, *settings, editor="memit", covariance="c.safetensors")
