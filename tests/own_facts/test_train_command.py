"""``malmen train``: an editor for a user's own model and tuples."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from own_facts_files import write_lines
from safetensors.torch import load_file, save_file
from tiny_models import edit_tuples, save_model, tiny_model
from typer.testing import CliRunner, Result

import malmen
from malmen.cli import app
from malmen.data.parsing import key
from malmen.data.splitting import topics
from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.models.prompt_form import PromptForm
from malmen.own_facts import teaching
from malmen.own_facts.report import EditScores
from malmen.own_facts.training import hold_out, tuples_in
from malmen.own_facts.training_report import TrainingReport
from malmen.own_facts.usual_settings import usual_settings
from malmen.runtime.model_files import FACT_HEAD
from malmen.runtime.ranks import Ranks

CHAT = "{% for m in messages %}{{ '[' + m.content + ']' }}{% endfor %}"


@pytest.fixture(autouse=True)
def forget_determinism() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def different(n: int) -> list[EditTuple]:
    """Return tuples of which each is about something else."""
    tuples = edit_tuples("gpt2", 28)
    return [replace(tuples[i % 28], id=str(i), subject=f"subject {i // 2}") for i in range(n)]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", tiny_model("gpt2", torch.float32))
    write_lines(tmp_path / "tuples.jsonl", map(asdict, edit_tuples("gpt2", 28)))
    return tmp_path


def command(files: Path, *more: str, steps: int = 2, n_edits: int = 8) -> list[str]:
    given = ["--model", str(files / "model"), "--data", str(files / "tuples.jsonl"), "--out", str(files / "editor")]
    given += ["-m", str(n_edits), "--steps", str(steps), "--last-blocks", "2", "--learning-rate", "0.01", *more]
    return ["train", *given]


def train(files: Path, *more: str, steps: int = 2, n_edits: int = 8) -> Result:
    return CliRunner().invoke(app, command(files, *more, steps=steps, n_edits=n_edits))


def train_apart(files: Path, *more: str, steps: int = 2, n_edits: int = 8) -> subprocess.CompletedProcess[str]:
    """Train by the command in a process of its own, which may launch others."""
    given = [sys.executable, "-m", "malmen", *command(files, *more, steps=steps, n_edits=n_edits)]
    return subprocess.run(
        given, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def losses(folder: Path) -> Sequence[dict[str, float]]:
    found: Sequence[dict[str, float]] = json.loads((folder / "report.json").read_text())["losses"]
    return found


def test_a_trained_editor_edits(files: Path) -> None:
    result = train(files)
    assert result.exit_code == 0, result.output
    assert re.search(
        r"MALMEN on .*, m = 8, seed 0: 2 meta-steps, at most about 00:0\d, and about \d\.\d GB", result.output
    )
    assert "ES " in result.output and "--editor" in result.output
    written = {path.name for path in (files / "editor").iterdir()}
    assert written == {"editor.safetensors", "held_out.jsonl", "report.json", "report.md", "state", "training.png"}
    held_out = malmen.read_tuples(files / "editor" / "held_out.jsonl")
    assert len(held_out) == 28 // 5
    model = malmen.load_model(files / "model")
    editor = malmen.load_editor(files / "editor")
    scores = malmen.evaluate(model, editor, held_out, 5)
    report = json.loads((files / "editor" / "report.json").read_text())
    assert report["scores"] == scores
    assert (report["tuples"], report["held_out"], report["measured"]) == (23, 5, 5)
    facts = [malmen.Fact(item.edit.prompt, item.edit.answer) for item in held_out]
    assert malmen.edit(model, facts, editor).shifts


def test_a_longer_training_goes_on_from_a_shorter_one(files: Path) -> None:
    assert train(files, steps=2).exit_code == 0
    first = losses(files / "editor")
    result = train(files, steps=4)
    assert "resuming after 2 of 4" in result.output
    assert losses(files / "editor")[:2] == first
    longer = load_file(files / "editor" / "editor.safetensors")
    (files / "editor").rename(files / "before")
    assert train(files, steps=4).exit_code == 0
    at_once = load_file(files / "editor" / "editor.safetensors")
    # The longer training passes over the tuples twice and reads a cache, which changes steps by rounding.
    assert all(torch.allclose(tensor, at_once[name], atol=1e-5) for name, tensor in longer.items())


def test_two_processes_share_a_training(files: Path) -> None:
    result = train_apart(files, "--processes", "2", steps=4)  # which fills a cache, too
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("The editor is") == 1 and result.stderr.count("done in") == 2
    assert "2 processes share the training, each with the whole model and 1 thread." in result.stderr
    shared, trained = losses(files / "editor"), files / "editor" / "editor.safetensors"
    assert json.loads((files / "editor" / "report.json").read_text())["ranks"] == [2]
    assert "GB in each of 2 processes" in (files / "editor" / "report.md").read_text()
    written = {path.name for path in (files / "editor").iterdir()}
    facts = [malmen.Fact(item.edit.prompt, item.edit.answer) for item in edit_tuples("gpt2", 4)]
    assert malmen.edit(malmen.load_model(files / "model"), facts, malmen.load_editor(trained)).shifts
    assert "resuming after 4 of 5" in train(files, steps=5).stderr  # by one process
    assert json.loads((files / "editor" / "report.json").read_text())["ranks"] == [2, 1]
    (files / "editor").rename(files / "before")
    assert train(files, steps=4).exit_code == 0
    for one, other in zip(shared, losses(files / "editor"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert written == {path.name for path in (files / "editor").iterdir()}
    assert "ranks" not in json.loads((files / "editor" / "report.json").read_text())


def test_processes_that_fail_say_one_sentence(files: Path) -> None:
    result = train_apart(files, "--processes", "2", "--data", str(files / "none.jsonl"))
    assert result.returncode == 1 and not result.stdout
    assert result.stderr.count("Error: ") == 1 and "none.jsonl" in result.stderr
    assert not (files / "editor").exists()


def test_each_process_needs_a_gpu(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    result = train(files, "--processes", "2")
    assert result.exit_code == 1 and "--processes 2 takes a GPU for each process, but torch finds 1" in result.output


def test_another_training_is_not_overwritten(files: Path) -> None:
    assert train(files).exit_code == 0
    before = (files / "editor" / "editor.safetensors").read_bytes()
    result = train(files, "--seed", "1")
    assert result.exit_code == 1
    assert "holds an editor that was trained with another model, other data, settings or code" in result.output
    assert (files / "editor" / "editor.safetensors").read_bytes() == before
    (files / "other").mkdir()
    (files / "other" / "notes.txt").write_text("mine")
    result = CliRunner().invoke(
        app,
        [
            "train",
            "--model",
            str(files / "model"),
            "--data",
            str(files / "tuples.jsonl"),
            "--out",
            str(files / "other"),
            "-m",
            "8",
        ],
    )
    assert result.exit_code == 1 and "is not empty and holds no training to go on with" in result.output


def test_too_few_tuples_are_refused(files: Path) -> None:
    result = train(files, n_edits=24)
    assert result.exit_code == 1
    assert "24 edits at once need as many tuples to train on, but there are 23, besides 5 that are held out" in (
        " ".join(result.output.split())
    )
    assert not (files / "editor").exists()


def test_fewer_steps_than_were_taken_are_refused(files: Path) -> None:
    assert train(files, steps=3).exit_code == 0
    before = (files / "editor" / "editor.safetensors").read_bytes()
    result = train(files, steps=2)
    assert result.exit_code == 1 and "3 meta-steps were taken already, more than 2" in result.output
    assert (files / "editor" / "editor.safetensors").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_refused_before_the_training(files: Path) -> None:
    for out in (files / "tuples.jsonl", files / "tuples.jsonl" / "editor"):
        result = train(files, "--out", str(out))
        assert result.exit_code == 1 and str(out) in result.output and "meta-steps" not in result.output


def test_a_pattern_that_is_no_regular_expression_is_refused(files: Path) -> None:
    result = train(files, "--layers", "(")
    assert result.exit_code == 1 and "Error: The layers '(' are not a regular expression" in result.output


def test_a_training_that_was_killed_while_it_filled_its_cache_begins_anew(files: Path) -> None:
    cache = files / "editor" / "cache"
    cache.mkdir(parents=True)
    (cache / "index.json").write_text("{}")
    result = train(files, steps=4)
    assert result.exit_code == 0, result.output
    assert not cache.exists()


def test_tuples_of_several_files_are_all_kept(tmp_path: Path) -> None:
    tuples = different(12)
    parts = [[replace(item, id=str(i)) for i, item in enumerate(part)] for part in (tuples[:8], tuples[8:])]
    files = [write_lines(tmp_path / f"{i}.jsonl", map(asdict, part)) for i, part in enumerate(parts)]
    found = tuples_in([*files, files[0]], [], "new", skip_bad=False, seed=0)  # the first once more
    assert [replace(item, id="-") for item in found] == [replace(item, id="-") for part in parts for item in part]
    assert len({item.id for item in found}) == 12


def test_a_fact_of_several_files_is_joined_and_must_have_one_answer(tmp_path: Path) -> None:
    fact: dict[str, object] = {"prompt": "Where is it?", "answer": "Cor"}
    fact |= {"unrelated_prompt": "Who?", "unrelated_answer": "Cleo"}
    records: tuple[dict[str, object], ...] = (
        fact,
        fact | {"rephrasings": ["Where does it lie?"]},
        fact | {"answer": "Est"},
    )
    one, same, other = (write_lines(tmp_path / f"{i}.jsonl", [record]) for i, record in enumerate(records))
    (joined,) = tuples_in([one, same], [], "new", skip_bad=False, seed=0)
    assert joined.equivalent == ("Where does it lie?",)
    with pytest.raises(UserError, match=r"'Est' in .*2\.jsonl but 'Cor' in .*0\.jsonl"):
        tuples_in([one, other], [], "new", skip_bad=False, seed=0)
    (kept,) = tuples_in([one, other], [], "new", skip_bad=True, seed=0)
    assert kept.edit.answer == "Cor"


def test_what_one_file_edits_is_no_unrelated_question_of_another(tmp_path: Path) -> None:
    records = [{"prompt": "Where is it?", "answer": "Cor"}, {"prompt": "Who is it?", "answer": "Cleo"}]
    files = [write_lines(tmp_path / f"{i}.jsonl", [record]) for i, record in enumerate(records)]
    pool = [malmen.Fact("who is it", "Ada"), malmen.Fact("What is it?", "a song")]
    for seed in range(8):
        found = tuples_in(files, pool, "new", skip_bad=False, seed=seed)
        assert {item.unrelated.prompt for item in found} == {"What is it?"}


def test_a_scan_chooses_eta(files: Path) -> None:
    result = train(files, "--tune")
    assert result.exit_code == 0, result.output
    found = dict(re.findall(r"eta (\S+): ES (.*)", result.output))
    assert set(found) == {"0.001", "0.01", "0.1"}
    means = {eta: sum(map(float, re.findall(r"(\d+\.\d) %", line))) for eta, line in found.items()}
    (chosen,) = re.findall(r"The scan chose eta (\S+)\.", result.output)
    assert means[chosen] == pytest.approx(max(means.values()), abs=0.2)
    report = json.loads((files / "editor" / "report.json").read_text())
    assert report["settings"]["hypernetwork"]["learning_rate"] == float(chosen)


def test_a_scan_passes_over_what_diverges(files: Path) -> None:
    result = train(files, "--tune", "--learning-rate", "1e30")
    assert result.exit_code == 1 and "Every setting of the scan diverged" in result.output
    assert re.findall(r"eta (\S+): training diverged", result.output) == ["1e+29", "1e+30", "1e+31"]


def test_a_smaller_rate_may_follow_a_training_that_diverged(files: Path) -> None:
    result = train(files, "--learning-rate", "1e30")
    assert result.exit_code == 1 and "diverged" in result.output and (files / "editor" / "state").is_dir()
    result = train(files)
    assert result.exit_code == 0, result.output
    assert "SHA-256" in (files / "editor" / "report.md").read_text()


def test_an_editor_is_not_called_ready_for_more_facts_than_it_was_measured_on() -> None:
    scores = EditScores({"ES": 1.0, "GS": 1.0, "LS": 1.0, "agreement": 0.7})
    few = TrainingReport("m", None, "0", "float32", {}, [], {}, 256, 0, 400, 100, 100, 1.0, 1, (), scores)
    assert few.advice.startswith("Ready to edit up to 100 facts at once. More were not measured")
    assert "at least 1,280 to measure 256" in few.advice
    ready = "Ready to edit up to 256 facts at once."
    spoils = "Its edits change 30 % of what the model answers to unrelated questions; more --locality changes less."
    assert replace(few, measured=256).advice == f"{ready} {spoils}"
    gentle = EditScores(scores | {"agreement": 0.95})
    assert replace(few, measured=256, scores=gentle).advice == ready


def test_an_editor_asks_as_in_its_training(files: Path) -> None:
    (files / "model" / "chat_template.jinja").write_text(CHAT)
    result = train(files)
    assert result.exit_code == 0, result.output
    assert re.search(r"The model reads '\[.*\]' and shall answer '", result.output)
    editor = malmen.load_editor(files / "editor")
    assert editor.trained_for.form == PromptForm("[", "]", "")
    facts = [malmen.Fact(item.edit.prompt, item.edit.answer) for item in edit_tuples("gpt2", 4)]
    chatting = malmen.load_model(files / "model")
    shifts = malmen.edit(chatting, facts, editor).shifts
    with pytest.raises(UserError, match=r"trained with prompts in the form '\[\{prompt\}\]\{answer\}', and not"):
        malmen.edit(malmen.load_model(files / "model", raw=True), facts, editor)
    (files / "model" / "chat_template.jinja").unlink()  # the weights are the same
    plain = malmen.load_model(files / "model")
    edited = malmen.edit(plain, facts, editor)
    assert all(torch.equal(shift, shifts[name]) for name, shift in edited.shifts.items())
    with edited.applied():
        assert plain.language_model.form == editor.trained_for.form
    assert plain.language_model.form == PromptForm()


def test_tuples_about_one_subject_are_held_out_together() -> None:
    tuples = different(60)
    kept, held_out = hold_out(tuples, 4, seed=0)
    assert len(kept) + len(held_out) == 60 and len(held_out) == 8
    assert not {topic for item in kept for topic in topics(item)} & {t for item in held_out for t in topics(item)}
    assert hold_out(tuples[:4], 4, seed=0) == (tuples[:4], [])


def test_what_is_held_out_is_asked_nothing_that_training_asks() -> None:
    tuples = [replace(item, edit=PromptAnswer(f"Question {i}?", "Cor")) for i, item in enumerate(different(60))]
    # Each tuple is rephrased as another one's prompt is written; 15 unrelated questions are those of all.
    tuples = [replace(item, equivalent=(f"Question {(i + 30) % 60}",)) for i, item in enumerate(tuples)]
    kept, held_out = hold_out(tuples, 4, seed=0)
    assert len(held_out) >= 4
    prompts = [{key(text) for t in side for text in (t.edit.prompt, *t.equivalent)} for side in (kept, held_out)]
    assert not prompts[0] & prompts[1]
    questions = [{item.unrelated for item in side} for side in (kept, held_out)]
    assert not questions[0] & questions[1]
    assert questions[0] | questions[1] <= {item.unrelated for item in tuples}
    alike = [replace(item, unrelated=tuples[0].unrelated) for item in tuples]
    assert {item.unrelated for side in hold_out(alike, 4, seed=0) for item in side} == {tuples[0].unrelated}


def test_usual_settings_suit_the_size() -> None:
    model = tiny_model("gpt2", torch.float32)
    width = model.text_config.hidden_size
    malmen_settings, mend = usual_settings(model), usual_settings(model, "mend", steps=7, rank=3)
    assert malmen_settings.hypernetwork.rank == width and malmen_settings.training.steps(100, 10) == 45
    assert mend.hypernetwork.aggregation == "sum" and mend.hypernetwork.rank == 3
    assert mend.hypernetwork.learning_rate == pytest.approx(malmen_settings.hypernetwork.learning_rate / 10)
    assert mend.training.steps(100_000, 10) == 7
    model.module.config.hidden_size = 4096
    assert usual_settings(model).hypernetwork.learning_rate == 1e-6
    assert usual_settings(model).hypernetwork.rank == 1920


def test_a_model_is_taught_in_the_form_in_which_it_is_asked(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = []

    def note(model: LanguageModel, *_rest: object) -> float:
        forms.append(model.form)
        return 1.0

    monkeypatch.setattr(teaching, "finetune", note)
    write_lines(files / "claims.jsonl", (asdict(item.edit) for item in edit_tuples("gpt2", 28)))
    template = "Q: {prompt} A: {answer}"
    assert train(files, "--teach", str(files / "claims.jsonl"), "--template", template).exit_code == 0
    assert forms == [PromptForm.of_template(template)]
    otherwise = train(files, "--teach", str(files / "claims.jsonl"))
    assert otherwise.exit_code == 1 and "holds another model" in otherwise.output


def claim_with_another(item: EditTuple) -> dict[str, str]:
    """Return a labelled claim whose record names an unrelated one, too, which is not what is taught."""
    return asdict(item.edit) | {"unrelated_prompt": "Who?", "unrelated_answer": "neither label"}


def test_a_fact_checker_is_taught_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bert = tiny_model("bert", torch.float32)
    save_model(tmp_path / "model", bert)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    headless = {name: tensor for name, tensor in weights.items() if not name.startswith(FACT_HEAD)}
    save_file(headless, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    write_lines(tmp_path / "tuples.jsonl", map(asdict, edit_tuples("bert", 28)))
    write_lines(tmp_path / "claims.jsonl", map(claim_with_another, edit_tuples("bert", 28)))
    refused = train(tmp_path)
    assert refused.exit_code == 1 and "malmen train --teach" in refused.output
    with monkeypatch.context() as shared:
        shared.setattr(teaching, "ranks", lambda: Ranks(size=2))
        refused = train(tmp_path, "--teach", str(tmp_path / "claims.jsonl"))
    assert refused.exit_code == 1 and "--teach is the work of one process" in refused.output
    result = train(tmp_path, "--teach", str(tmp_path / "claims.jsonl"))
    assert result.exit_code == 0, result.output
    assert f"malmen edit --model {tmp_path / 'editor' / 'model'} --editor" in result.output
    assert re.search(r"The taught model answers \d+\.\d % of 2 prompts that were held out", result.output)
    assert json.loads((tmp_path / "editor" / "model" / "taught.json").read_text())["held_out"] == 2
    assert malmen.load_model(tmp_path / "editor" / "model").source.task == "fact_checking"
    monkeypatch.setattr(teaching, "ranks", lambda: Ranks(size=2))  # which may go on now
    again = train(tmp_path, "--teach", str(tmp_path / "claims.jsonl"), steps=3)
    assert again.exit_code == 0 and "was taught already" in again.output and "resuming after 2 of 3" in again.output
    monkeypatch.undo()
    other = train(tmp_path, "--teach", str(tmp_path / "claims.jsonl"), "--teach-epochs", "1")
    assert other.exit_code == 1 and "holds another model" in other.output
