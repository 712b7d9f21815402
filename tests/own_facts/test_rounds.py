"""Editing in rounds gives the weights of as many edits, one after the other, and is reported and undone as one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from own_facts_files import save_editor, save_key_covariance, write_facts
from safetensors.torch import load_file
from tiny_models import FFN, edit_tuples, ffn_layers, save_model, spread_attention, tiny_model
from torch import Tensor

import malmen
from malmen.config.memit import MemitSettings
from malmen.editing.editor import Editor
from malmen.editing.editor_file import read_editor_file
from malmen.editing.layers import PostEditWeights
from malmen.editing.memit.covariance import KeyCovariance
from malmen.editing.memit.editor import MemitEditor
from malmen.editing.training import encode_edits
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.models.load import load_model
from malmen.own_facts.edited import EditedModel
from malmen.own_facts.facts import Fact

N = 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TUNING = malmen.FineTuning(FFN["gpt2"]["second"], last_blocks=2, epochs=2, learning_rate=0.01)
MEMIT = MemitSettings(steps=3, prefix_starts=("The",), prefix_tokens=4, covariance_weight=3.0)


@pytest.fixture(autouse=True)
def forget_determinism() -> Any:
    """A loaded model makes torch deterministic; leave it as it was for other tests."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def facts() -> list[Fact]:
    return [Fact(t.edit.prompt, t.edit.answer, rephrasings=list(t.equivalent)) for t in edit_tuples("gpt2", N)]


def weights(folder: Path) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor], different_from: dict[str, Tensor]) -> None:
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], different_from[name]) for name in first)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounds_of_fine_tuning_are_edits_of_saved_models(tmp_path: Path, dtype: str) -> None:
    save_model(tmp_path / "m", tiny_model("gpt2", DTYPES[dtype]))
    model = malmen.load_model(tmp_path / "m", device="cpu")
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    edited = malmen.edit(model, facts(), TUNING, rounds=3)
    edited.save(tmp_path / "out")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())
    last = tmp_path / "m"
    for number, part in enumerate([facts()[:3], facts()[3:6], facts()[6:]]):
        malmen.edit(malmen.load_model(last, device="cpu"), part, TUNING).save(tmp_path / f"out{number}")
        last = tmp_path / f"out{number}"
    malmen.edit(model, facts(), TUNING).save(tmp_path / "at once")
    assert_same(weights(tmp_path / "out"), weights(last), different_from=weights(tmp_path / "at once"))
    assert edited.report.rounds == 3 and edited.report.counts["facts"] == N
    with edited.applied() as module:
        assert torch.equal(module.state_dict()["transformer.h.2.mlp.c_proj.weight"].cpu(), edited.weights.edited[1])
    malmen.undo_edit(tmp_path / "out", tmp_path / "restored")
    assert (tmp_path / "restored" / "model.safetensors").read_bytes() == (
        tmp_path / "m" / "model.safetensors"
    ).read_bytes()
    for name in ("report.md", "README.md"):
        assert "in 3 rounds" in (tmp_path / "out" / name).read_text(encoding="utf-8")


def by_hand(folder: Path, make: Any, rounds: Sequence[slice]) -> dict[str, Tensor]:
    """Edit a model by an editor of each round's own, saved and loaded again between two rounds; return its weights."""
    dtype: Any = "bfloat16"
    for part in rounds:
        model = load_model(folder, "question_answering", dtype)
        editor: Editor = make(model)
        edits = encode_edits(model, edit_tuples("gpt2", N)[part])
        edited = PostEditWeights(editor.layers, editor.shifts(model, edits))
        folder = folder.with_name(f"{folder.name}+")
        with edited.applied():
            save_model(folder, model)
    return weights(folder)


def test_rounds_of_a_trained_editor_are_its_edits_one_after_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("gpt2", torch.bfloat16)
    save_model(tmp_path / "m", model)
    file = save_editor(tmp_path / "editor.safetensors", model, tmp_path / "m")
    loaded = malmen.load_model(tmp_path / "m", device="cpu")
    edited = malmen.edit(loaded, facts(), malmen.load_editor(file), rounds=2)
    edited.save(tmp_path / "out")

    def make(model: LanguageModel) -> Editor:
        return read_editor_file(file, ffn_layers(model))

    expected = by_hand(tmp_path / "m", make, [slice(0, 4), slice(4, 8)])
    at_once = by_hand(tmp_path / "m", make, [slice(0, 8)])
    assert_same(weights(tmp_path / "out"), expected, different_from=at_once)
    assert "was not trained for" in caplog.text
    assert "trained for the unedited model alone" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_rounds_of_memit_keep_the_covariance_of_the_unedited_model(tmp_path: Path) -> None:
    model = spread_attention(tiny_model("gpt2", torch.bfloat16))
    save_model(tmp_path / "m", model)
    file = save_key_covariance(tmp_path / "c.safetensors", model, ffn_layers(model, last=3)[:2], tmp_path / "m")
    loaded = malmen.load_model(tmp_path / "m", device="cpu")
    malmen.edit(loaded, facts(), malmen.Memit(file, MEMIT), rounds=2).save(tmp_path / "out")

    def make(model: LanguageModel) -> Editor:
        layers = ffn_layers(model, last=3)[:2]
        return MemitEditor(layers, MEMIT, KeyCovariance.open(file, layers), seed=0)

    expected = by_hand(tmp_path / "m", make, [slice(0, 4), slice(4, 8)])
    at_once = by_hand(tmp_path / "m", make, [slice(0, 8)])
    assert_same(weights(tmp_path / "out"), expected, different_from=at_once)


def edited_in(rounds: Any, folder: Path) -> EditedModel:
    return malmen.edit(malmen.load_model(folder, device="cpu"), facts(), TUNING, rounds=rounds)


@pytest.mark.parametrize("rounds", [0, -1, N + 1, 1.5])
def test_a_number_of_rounds_that_cannot_be_is_refused(tmp_path: Path, rounds: Any) -> None:
    save_model(tmp_path / "m", tiny_model("gpt2", torch.float32))
    with pytest.raises(UserError, match=rf"{N} facts .*{rounds} rounds.*1 to {N}"):
        edited_in(rounds, tmp_path / "m")


def test_a_round_that_fails_is_named_and_the_model_stays_as_it_was(tmp_path: Path) -> None:
    save_model(tmp_path / "m", tiny_model("gpt2", torch.float32))
    model = malmen.load_model(tmp_path / "m", device="cpu")
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    with pytest.raises(UserError, match=r"round [12] of 2"):
        malmen.edit(model, facts(), replace(TUNING, learning_rate=1e30), rounds=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())


def test_the_size_of_a_round_counts_for_the_editor(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The tiny editor is trained for 20 edits at once."""
    model = tiny_model("gpt2", torch.float32)
    save_model(tmp_path / "m", model)
    editor = malmen.load_editor(save_editor(tmp_path / "editor.safetensors", model, tmp_path / "m"))
    given = malmen.read_facts(write_facts(tmp_path / "facts.jsonl", "gpt2", 24))
    loaded = malmen.load_model(tmp_path / "m", device="cpu")
    malmen.edit(loaded, given, editor, rounds=2)
    assert "at once are more than" not in caplog.text
    malmen.edit(loaded, given, editor)
    assert "24 facts at once are more than the 20" in caplog.text


def test_rounds_of_memit_remember_the_keys_of_earlier_ones_if_asked(tmp_path: Path) -> None:
    model = spread_attention(tiny_model("gpt2", torch.float32))
    save_model(tmp_path / "m", model)
    file = save_key_covariance(tmp_path / "c.safetensors", model, ffn_layers(model, last=3)[:2], tmp_path / "m")
    loaded = malmen.load_model(tmp_path / "m", device="cpu")
    kinds = [malmen.Memit(file, replace(MEMIT, remember=remember)) for remember in (False, True)]
    for rounds, alike in ((1, True), (2, False)):
        plain, remembering = (malmen.edit(loaded, facts(), kind, rounds=rounds).weights.edited for kind in kinds)
        assert all(map(torch.equal, plain, remembering)) == alike
