"""MEMIT without a covariance: it is collected from text on first use, kept, and found again; layers; progress."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from own_facts_files import write_facts_for_memit
from safetensors.torch import load_file
from tiny_models import FFN, SHAPES, edit_tuples, save_model, spread_attention, tiny_model, tiny_tokenizer
from typer.testing import CliRunner, Result

from malmen.cli import app
from malmen.config.memit import CovarianceSettings, MemitSettings
from malmen.editing.memit import targets
from malmen.editing.memit.covariance import CollectedFrom, KeyCovariance, collect_key_covariance, encode_texts
from malmen.errors import UserError
from malmen.models.identity import weights_digest
from malmen.models.language_model import LanguageModel
from malmen.models.load import load_model
from malmen.models.scratch import new_model
from malmen.models.tasks import TASKS
from malmen.own_facts import key_covariance
from malmen.own_facts.key_covariance import choose_layers, wanted_tokens
from malmen.own_facts.methods import Memit
from malmen.runtime.progress import progress

MEMIT = MemitSettings(steps=3, prefix_starts=("The",), prefix_tokens=4, covariance_weight=3.0, batch_size=2)
LAYER = r"transformer\.h\.[01]\.mlp\.c_proj"


@pytest.fixture(autouse=True)
def forget_determinism() -> Any:
    """The command makes torch deterministic; leave it as it was for other tests."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, facts, MEMIT's settings and ordinary text, and an empty folder of caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)  # The command keeps caches in a checkout, if it may.
    save_model(tmp_path / "model", spread_attention(tiny_model("gpt2", torch.float32)))
    write_facts_for_memit(tmp_path / "facts.jsonl", 5)
    (tmp_path / "memit.json").write_text(json.dumps(asdict(MEMIT)), encoding="utf-8")
    (tmp_path / "text.txt").write_text("\n\n".join(lines()), encoding="utf-8")
    return tmp_path


def lines() -> list[str]:
    return [item.edit.prompt for item in edit_tuples("gpt2", 28)]


def edit(folder: Path, out: str, *more: str) -> Result:
    own = {"model": "model", "facts": "facts.jsonl", "out": out, "memit-settings": "memit.json"}
    options = [part for name, value in own.items() for part in (f"--{name}", str(folder / value))]
    return CliRunner().invoke(app, ["edit", *options, "--editor", "memit", "--device", "cpu", *more])


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache").rglob("*.safetensors"))


def test_it_is_collected_from_the_text_kept_and_found_again(folder: Path) -> None:
    text, layers = ("--text", str(folder / "text.txt")), ("--layers", LAYER)
    result = edit(folder, "out", *text, *layers)
    assert result.exit_code == 0, result.output
    (file,) = kept(folder)
    collected = CollectedFrom.read(file)
    assert collected.weights == weights_digest(folder / "model") and str(folder / "text.txt") in collected.source
    assert weights_digest(folder / "model") in str(file) and not list((folder / "model").glob("key*"))

    model = load_model(folder / "model", "question_answering")
    chosen = choose_layers(model, [LAYER])
    assert [layer.name for layer in chosen] == ["transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj"]
    expected, n_tokens = collect_key_covariance(model, chosen, encode_texts(model, lines(), 10**6), 8)
    assert collected.tokens == n_tokens
    for layer in chosen:
        torch.testing.assert_close(KeyCovariance.open(file, chosen)[layer.name], expected[layer.name].float())

    before, made = file.read_bytes(), file.stat().st_mtime_ns
    again = edit(folder, "again", *text, *layers)
    assert kept(folder) == [file] and file.stat().st_mtime_ns == made and file.read_bytes() == before
    assert "collects" in result.stderr and "collects" not in again.stderr and str(file) in again.stderr
    given = edit(folder, "given", "--covariance", str(file))
    assert given.exit_code == 0, given.output
    weights = [load_file(folder / name / "model.safetensors") for name in ("out", "again", "given")]
    for other in weights[1:]:
        assert all(torch.equal(weights[0][name], other[name]) for name in weights[0])
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["covariance"] == str(file) and report["collected"] == asdict(collected)
    assert f"{n_tokens:,} tokens of {folder / 'text.txt'}" in (folder / "out" / "report.md").read_text(encoding="utf-8")


def test_another_text_number_of_tokens_or_choice_of_layers_is_another_covariance(folder: Path) -> None:
    (folder / "other.txt").write_text("\n".join(reversed(lines())), encoding="utf-8")
    usual = ["--text", str(folder / "text.txt")]
    for n, more in enumerate([usual, ["--text", str(folder / "other.txt")], [*usual, "--text-tokens", "100"]], start=1):
        assert edit(folder, f"out{n}", *more).exit_code == 0
        assert len(kept(folder)) == n
    assert edit(folder, "out4", *usual, "--layers", LAYER).exit_code == 0
    assert len(kept(folder)) == 4
    assert 100 in [CollectedFrom.read(file).tokens for file in kept(folder)]


def refusal(folder: Path, *more: str) -> str:
    result = edit(folder, "out", *more)
    assert result.exit_code == 1 and not (folder / "out").exists() and not kept(folder), result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


def test_a_text_that_is_too_short_is_refused(folder: Path) -> None:
    line = refusal(folder, "--text", str(folder / "text.txt"), "--text-tokens", "20")
    assert "20 tokens" in line and "64 numbers" in line and line.rstrip().endswith("read more of them (--text-tokens).")
    (folder / "short.txt").write_text("Cor", encoding="utf-8")
    line = refusal(folder, "--text", str(folder / "short.txt"))
    assert line.rstrip().endswith("give a longer --text.")


def test_without_network_and_text_one_sentence_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_settings: CovarianceSettings) -> Iterator[str]:
        raise ConnectionResetError("no route")
        yield

    monkeypatch.setattr(key_covariance, "wikipedia_articles", unreachable)
    line = refusal(folder)
    assert "Wikipedia" in line and "ConnectionResetError" in line and "--text" in line


def test_wikipedia_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_covariance, "wikipedia_articles", lambda _settings: iter(lines()))
    result = edit(folder, "out")
    assert result.exit_code == 0, result.output
    (file,) = kept(folder)
    assert CollectedFrom.read(file).source.startswith("wikimedia/wikipedia 20231101.en at b04c8d1")
    assert "wikimedia/wikipedia" in result.stderr


def test_what_cannot_be_used_is_named_before_the_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(folder / "none.txt") in refusal(folder, "--text", str(folder / "none.txt"))
    assert "text" in refusal(folder, "--covariance", "c.safetensors", "--text", str(folder / "text.txt"))
    assert "*" in refusal(folder, "--text", str(folder / "text.txt"), "--layers", "*")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert "/proc/none" in (line := refusal(folder, "--text", str(folder / "text.txt"))) and "XDG_CACHE_HOME" in line


@pytest.mark.parametrize(("n_blocks", "first", "last"), [(28, 3, 8), (30, 3, 8), (12, 1, 3), (3, 0, 0)])
def test_the_default_layers_are_as_deep_as_in_gpt_j(n_blocks: int, first: int, last: int) -> None:
    tokenizer = tiny_tokenizer("gptj")
    module = new_model(replace(SHAPES["gptj"], layers=n_blocks), tokenizer)
    found = choose_layers(LanguageModel(module, tokenizer, TASKS["question_answering"]), ())
    assert [layer.name for layer in found] == [f"transformer.h.{i}.mlp.fc_out" for i in range(first, last + 1)]
    assert FFN["gptj"]["second"] == [r"transformer\.h\.\d+\.mlp\.fc_out"]


def test_how_many_tokens_are_read() -> None:
    assert wanted_tokens(Memit(), 768) == 100_000 and wanted_tokens(Memit(), 16_384) == 491_520
    assert wanted_tokens(Memit(text_tokens=7), 768) == 7
    fewer = replace(MEMIT, covariance=CovarianceSettings(max_tokens=50))
    assert wanted_tokens(Memit(settings=fewer), 768) == 50
    with pytest.raises(UserError, match="text_tokens"):
        Memit(text_tokens=0)


def test_progress_is_told_by_step_and_by_edit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "progress", partial(progress, every_seconds=0))
    result = edit(folder, "out", "--text", str(folder / "text.txt"))
    assert result.exit_code == 0, result.output
    assert "edits 1 to 2 of 5: 1 of 3 steps" in result.stderr and "edits 5 to 5 of 5: 2 of 3 steps" in result.stderr
    assert "hidden states: 2 of 5" in result.stderr
