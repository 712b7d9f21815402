"""``malmen init``: a configuration of the workflow for a user's own model and facts."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from own_facts_files import write_facts, write_lines, write_unrelated
from tiny_models import edit_tuples, save_model, tiny_model
from typer.testing import CliRunner, Result

from malmen.cli import app
from malmen.config.load import load_file
from malmen.models.identity import weights_digest


@pytest.fixture(autouse=True)
def forget_determinism() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", tiny_model("gpt2", torch.float32))
    write_lines(tmp_path / "facts.jsonl", map(asdict, edit_tuples("gpt2", 28)))
    return tmp_path


def init(files: Path, *more: str) -> Result:
    given = ["--model", str(files / "model"), "--data", str(files / "facts.jsonl"), "--out", str(files / "own.yaml")]
    return CliRunner().invoke(app, ["init", *given, *more])


def test_what_is_written_is_a_configuration(files: Path) -> None:
    result = init(files)
    assert result.exit_code == 0, result.output
    config = load_file(files / "own.yaml")
    model = config.models["own"]
    assert (config.run, model.pretrained, model.sha256) == (
        "own",
        str(files / "model"),
        weights_digest(files / "model"),
    )
    assert model.ffn.patterns() == {
        "first": [r"transformer\.h\.\d+\.mlp\.c_fc"],
        "second": [r"transformer\.h\.\d+\.mlp\.c_proj"],
    }
    assert model.n_edits == [1, 4]  # a fifth of 28 facts is for validation
    assert model.prompt == "plain" and set(model.editors) == {"malmen", "ft"}
    assert config.data.files.facts == str(files / "facts.jsonl")
    assert f"snakemake --configfile {files / 'own.yaml'}" in (files / "own.yaml").read_text()


def test_a_template_is_written(files: Path) -> None:
    assert init(files, "--template", "Q: {prompt} A: {answer}").exit_code == 0
    assert load_file(files / "own.yaml").models["own"].prompt == "Q: {prompt} A: {answer}"


def test_a_chat_model_chats(files: Path) -> None:
    (files / "model" / "chat_template.jinja").write_text("[{{ messages[0].content }}]")
    assert init(files).exit_code == 0
    assert load_file(files / "own.yaml").models["own"].prompt == "chat"


def test_nothing_is_overwritten(files: Path) -> None:
    (files / "own.yaml").write_text("mine")
    result = init(files)
    assert result.exit_code == 1 and "own.yaml exists; choose another --out" in " ".join(result.output.split())
    assert (files / "own.yaml").read_text() == "mine"


def test_too_few_facts_are_refused(files: Path) -> None:
    write_lines(files / "facts.jsonl", map(asdict, edit_tuples("gpt2", 4)))
    result = init(files)
    assert result.exit_code == 1 and "has 4 facts; give at least 5" in " ".join(result.output.split())


def test_facts_that_the_workflow_would_refuse_are_refused(files: Path) -> None:
    write_facts(files / "facts.jsonl", "gpt2", 28)
    result = init(files)
    assert result.exit_code == 1 and "no unrelated prompt" in result.output and not (files / "own.yaml").exists()
    write_unrelated(files / "unrelated.jsonl", "gpt2", 28)
    assert init(files, "--unrelated", str(files / "unrelated.jsonl")).exit_code == 0
    write_lines(files / "facts.jsonl", map(asdict, edit_tuples("gpt2", 1)))
    result = init(files, "--out", str(files / "few.yaml"))
    assert result.exit_code == 1 and "has 1 fact;" in result.output


def test_a_path_through_a_file_is_refused(files: Path) -> None:
    result = init(files, "--out", str(files / "facts.jsonl" / "own.yaml"))
    assert result.exit_code == 1 and f"Error: {files / 'facts.jsonl'}: a file is in the way" in result.output
