"""``malmen check`` and ``malmen ask`` on tiny models."""

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from own_facts_files import save_editor, write_facts, write_lines, write_unrelated
from tiny_models import PLACES, edit_tuples, save_model, tiny_model
from typer.testing import CliRunner, Result

import malmen
from malmen.cli import app
from malmen.config.base import Architecture
from malmen.errors import UserError
from malmen.models.generation import continuations
from malmen.own_facts import lm_eval
from malmen.own_facts.facts import Fact

N = 12
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<me>{% endif %}"


@pytest.fixture(autouse=True)
def forget_determinism() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def prepare(folder: Path, architecture: Architecture = "gpt2") -> Path:
    """Save a model, facts and unrelated questions."""
    save_model(folder / "model", tiny_model(architecture, torch.float32))
    write_facts(folder / "facts.jsonl", architecture, N)
    write_unrelated(folder / "unrelated.jsonl", architecture, N)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


def check(folder: Path, model: str, *more: str | Path) -> Result:
    given = ("--facts", folder / "facts.jsonl", "--unrelated", folder / "unrelated.jsonl", "--out", folder / "check")
    return run("check", folder / model, *given, *more)


def result(folder: Path, name: str = "check/check.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("architecture", ["gpt2", "t5", "bert"])
def test_a_check_finds_what_the_edit_reported(tmp_path: Path, architecture: Architecture) -> None:
    folder = prepare(tmp_path, architecture)
    save_editor(folder / "e.safetensors", tiny_model(architecture, torch.float32), folder / "model")
    files = ("--facts", folder / "facts.jsonl", "--unrelated", folder / "unrelated.jsonl")
    edited = run(
        "edit", "--model", folder / "model", "--editor", folder / "e.safetensors", *files, "--out", folder / "out"
    )
    assert edited.exit_code == 0, edited.output
    checked = check(folder, "out", "--before", folder / "model")
    assert checked.exit_code == 0, checked.output
    reported, found = result(folder, "out/report.json"), result(folder)
    for name in ("verdict", "health", "counts", "answers", "answers_to_rephrasings", "answers_to_unrelated", "by_text"):
        assert found[name] == reported[name], name
    assert found["metrics"] == pytest.approx(reported["metrics"])
    for output in (edited.stdout, checked.stdout):
        assert output.startswith(found["verdict"]["sentence"]) and "ES  " in output
    for page in ("out/report.md", "out/report.html", "check/check.md", "check/check.html"):
        assert edit_tuples(architecture, 1)[0].edit.prompt in (folder / page).read_text(encoding="utf-8")
    assert (found["health"]["perplexity"] is None) == (architecture == "bert") == (not found["health"]["freely"])


def spoiled(folder: Path) -> None:
    """Save a model that says one word for ever, whatever it is asked."""
    model = tiny_model("gpt2", torch.float32)
    token = model.tokenizer(" Ada")["input_ids"][-1]
    with torch.no_grad():
        module: Any = model.module
        module.transformer.ln_f.bias += 1e3 * module.lm_head.weight[token]
    save_model(folder / "spoiled", model)


def test_a_model_that_repeats_one_word_is_not_to_be_used(folder: Path) -> None:
    spoiled(folder)
    checked = check(folder, "spoiled", "--before", folder / "model")
    assert checked.exit_code == 0 and "do not use this model" in checked.stdout.splitlines()[0]
    found = result(folder)
    assert found["verdict"]["level"] == "refuse" and found["health"]["entropy"] == 0
    assert found["health"]["unrelated_changed"] == N and len(found["health"]["generations"]) == 3
    assert found["health"]["perplexity"] > 2 * found["health"]["perplexity_before"]
    assert check(folder, "spoiled", "--before", folder / "model", "--fail").exit_code == 1
    assert check(folder, "spoiled", "--fail").exit_code == 1
    assert "do not use" in (folder / "check" / "check.html").read_text(encoding="utf-8")


def answered(folder: Path) -> list[Fact]:
    """Write facts that the model answers by itself."""
    model = malmen.load_model(folder / "model", device="cpu")
    prompts = [item.edit.prompt for item in edit_tuples("gpt2", 28)]
    said = malmen.ask(model, prompts, max_tokens=3)
    facts = [Fact(prompt, text) for prompt, text in zip(prompts, said, strict=True) if text and "\ufffd" not in text]
    write_lines(folder / "facts.jsonl", ({"prompt": fact.prompt, "answer": fact.answer} for fact in facts))
    return facts


def test_a_model_that_is_as_before_and_knows_the_facts_is_fine(folder: Path) -> None:
    facts = answered(folder)
    checked = check(folder, "model", "--before", folder / "model", "--fail")
    assert checked.exit_code == 0, checked.output
    assert checked.stdout.splitlines()[0].endswith("fine to use.")
    found = result(folder)
    assert found["health"]["facts_right"] == found["health"]["facts_right_before"] == len(facts) > 3
    assert found["health"]["unrelated_changed"] == 0 and found["metrics"]["agreement"] == 1


def test_without_the_model_before_only_what_can_be_said_is_said(folder: Path) -> None:
    answered(folder)
    assert check(folder, "model", "--text", Path(__file__)).exit_code == 0
    found = result(folder)
    assert set(found["metrics"]) == {"ES", "LS", "by_text"}
    assert found["verdict"]["level"] != "fine" and "--before" in " ".join(found["verdict"]["advice"])
    assert {found["health"][name] for name in ("unrelated_changed", "facts_right_before", "perplexity_before")} == {
        None
    }
    assert {answer["changed"] for answer in found["answers_to_unrelated"]} == {None}
    assert found["health"]["text"] == __file__


def test_the_form_is_the_chat_template_unless_the_user_says_otherwise(folder: Path) -> None:
    (folder / "model" / "chat_template.jinja").write_text(CHAT, encoding="utf-8")
    assert check(folder, "model").exit_code == 0
    assert result(folder)["form"]["after"] == "<me>"
    assert "'<me>' after it" in (folder / "check" / "check.md").read_text(encoding="utf-8")
    assert check(folder, "model", "--raw").exit_code == 0
    assert result(folder)["form"] == {"before": "", "after": "", "separator": " "}
    said = {}
    for options in ((), ("--raw",), ("--template", "{prompt}<me>{answer}")):
        asked = run("ask", folder / "model", "Where did Cleo write one film?", "--max-tokens", "4", *options)
        said[options] = asked.stdout
        assert asked.exit_code == 0 and len(asked.stdout.splitlines()) == 1
    assert said[()] != said["--raw",] and "<" not in "".join(said.values())


def test_an_edited_model_is_asked_as_it_was_edited(folder: Path) -> None:
    (folder / "model" / "report.json").write_text(
        json.dumps({"form": {"before": "<", "after": ">", "separator": ""}}), encoding="utf-8"
    )
    checked = check(folder, "model")
    assert "is asked as it was edited, in the form '<{prompt}>{answer}'" in checked.output
    assert result(folder)["form"]["before"] == "<"
    asked = ("ask", folder / "model", "Where did Cleo write one film?", "--max-tokens", "4")
    by_template = run(*asked, "--template", "<{prompt}>{answer}")
    assert "is asked as it was edited" not in by_template.output
    assert run(*asked).stdout == by_template.stdout != run(*asked, "--raw").stdout
    (folder / "model" / "report.json").write_text('{"form": {"before": 1}}', encoding="utf-8")
    assert run(*asked).stdout == run(*asked, "--raw").stdout


def test_models_that_read_prompts_otherwise_are_not_compared(folder: Path) -> None:
    other = tiny_model("gpt2", torch.float32)
    save_model(folder / "other", other)
    path = folder / "other" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    del tokenizer["model"]["merges"][-30:]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    (line,) = check(folder, "model", "--before", folder / "other").stderr.splitlines()[-1:]
    assert line.startswith("Error: ") and "different tokens" in line and "--before" in line


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--lm-eval", "hellaswag"), "not installed; run pip install"),
        (("--out", "facts.jsonl"), "is a file"),
        (("--template", "{prompt}"), "{prompt} once"),
        (("--text", "none.txt"), "none.txt cannot be read"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(folder: Path, options: tuple[str, str], part: str) -> None:
    if options[0] == "--lm-eval" and find_spec(lm_eval.HARNESS):
        pytest.skip("lm-evaluation-harness is installed")
    value = folder / options[1] if options[0] in ("--out", "--text") else options[1]
    refused = check(folder, "model", options[0], value)
    assert refused.exit_code == 1 and part in refused.stderr and not (folder / "check").exists()


def test_tasks_of_the_harness_are_run_on_both_models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness needs a hub; what it is given and gives out is that of its version 0.4."""
    asked: list[dict[str, Any]] = []

    def simple_evaluate(**options: Any) -> dict[str, Any]:
        asked.append(options)
        acc = 0.5 + 0.25 * options["model_args"]["pretrained"].endswith("model")
        return {"results": {"arc_easy": {"alias": "arc_easy", "acc,none": acc, "acc_stderr,none": 0.1}}}

    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace(simple_evaluate=simple_evaluate))
    monkeypatch.setattr(lm_eval, "find_spec", lambda _: True)
    save_model(folder / "out", tiny_model("gpt2", torch.float32))
    checked = check(folder, "out", "--before", folder / "model", "--lm-eval", "arc_easy, ")
    assert "arc_easy, acc: 0.5000, was 0.7500" in checked.stdout
    assert [one["model_args"]["pretrained"] for one in asked] == [str(folder / name) for name in ("out", "model")]
    assert {tuple(one["tasks"]) for one in asked} == {("arc_easy",)} and {one["device"] for one in asked} == {"cpu"}
    assert result(folder)["tasks"] == [{"task": "arc_easy", "metric": "acc", "before": 0.75, "after": 0.5}]


@pytest.mark.skipif(find_spec(lm_eval.HARNESS) is None, reason="lm-evaluation-harness is not installed")
def test_the_harness_runs_a_task_on_data_of_this_machine(folder: Path) -> None:
    records = [
        {"q": item.edit.prompt, "choices": list(PLACES), "gold": PLACES.index(item.edit.answer)}
        for item in edit_tuples("gpt2", 6)
    ]
    write_lines(folder / "data.jsonl", records)
    task = {
        "task": "places",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "data.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "places.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML
    save_model(folder / "out", tiny_model("gpt2", torch.float32, seed=1))
    checked = check(folder, "out", "--before", folder / "model", "--lm-eval", folder / "places.yaml")
    assert "places, acc: " in checked.stdout and ", was " in checked.stdout
    [score] = result(folder)["tasks"]
    assert (score["task"], score["metric"]) == ("places", "acc")
    shares = {i / 6 for i in range(7)}
    assert {score["before"], score["after"]} <= shares


def test_the_api_is_the_commands(folder: Path) -> None:
    spoiled(folder)
    before, after = (malmen.load_model(folder / name, device="cpu") for name in ("model", "spoiled"))
    facts, unrelated = malmen.read_facts(folder / "facts.jsonl"), malmen.read_unrelated(folder / "unrelated.jsonl")
    report = malmen.check(after, facts, unrelated, before)
    report.write(folder / "api")
    assert check(folder, "spoiled", "--before", folder / "model").exit_code == 0
    for name in ("verdict", "health", "metrics", "answers"):
        assert result(folder, "api/check.json")[name] == result(folder)[name]
    with pytest.raises(UserError, match="no facts"):
        malmen.check(after, [])


# malmen ask


def test_several_questions_are_printed_with_their_answers(folder: Path) -> None:
    one, two = "Where did Cleo write one film?", "Who came from Cor to Cor?"
    asked = run("ask", folder / "model", one, two, "--max-tokens", "3")
    model = malmen.load_model(folder / "model", device="cpu")
    answers = malmen.ask(model, [one, two], max_tokens=3)
    assert asked.stdout.replace("\r", "") == f"{one}\n{answers[0]}\n{two}\n{answers[1]}\n"
    assert malmen.ask(model, [two], max_tokens=3) == answers[1:]


def test_an_empty_answer_is_shown_as_nothing_and_an_empty_question_refused(folder: Path) -> None:
    model = malmen.load_model(folder / "model", device="cpu")
    prompt = "Where did Cleo write one film?"
    (token,) = continuations(model.language_model, [prompt], [1], "asking")[0]
    path = folder / "model" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": token}))
    assert run("ask", folder / "model", prompt).stdout == "(nothing)\n"
    refused = run("ask", folder / "model", " ")
    assert refused.exit_code == 1 and "question is empty" in refused.stderr
    assert "tokens" in run("ask", folder / "model", "Cleo " * 99).stderr


def test_a_fact_checker_is_asked_claims(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "bert")
    claims = [item.edit.prompt for item in edit_tuples("bert", 4)]
    printed = run("ask", folder / "model", *claims).stdout.splitlines()
    assert printed[::2] == claims and set(printed[1::2]) <= {"SUPPORTS", "REFUTES"}
    assert "without a template" in run("ask", folder / "model", "a", "--template", "{prompt} {answer}").stderr


def test_what_is_not_measured_is_counted_all_the_same(folder: Path) -> None:
    save_editor(folder / "e.safetensors", tiny_model("gpt2", torch.float32), folder / "model")
    given = ("--model", folder / "model", "--editor", folder / "e.safetensors", "--facts", folder / "facts.jsonl")
    assert run("edit", *given, "--out", folder / "out", "--measure", "5").exit_code == 0
    page = (folder / "out" / "report.md").read_text(encoding="utf-8")
    assert (
        f"# {N} facts edited into" in page and "Measured: 5 of the facts, 5 of the rephrasings and 5 of the un" in page
    )
    assert len(result(folder, "out/report.json")["answers"]) == 5
    assert check(folder, "out").exit_code == 0
    assert "Measured:" not in (folder / "check" / "check.md").read_text(encoding="utf-8")
