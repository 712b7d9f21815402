"""Undoing an edit, and its delta alone: the bytes of before, and the bytes of after, for files of all kinds."""

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import Metadata
from huggingface_hub import ModelCard
from own_facts_files import into_parts, write_facts
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import save_model, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM
from typer.testing import CliRunner, Result

import malmen
from malmen.cli import app
from malmen.errors import UserError
from malmen.models.identity import weights_digest
from malmen.own_facts.delta import CHUNK, Delta, write_changed
from malmen.own_facts.edited import EditedModel
from malmen.runtime.model_files import write_source

CARD = """---
license: apache-2.0
tags:
- tiny
base_model: lab/older
model-index:
- name: tiny
  results: []
date: 2024-01-02
---
# Tiny

It answers questions.
"""


@pytest.fixture(autouse=True)
def forget_determinism() -> Any:
    """A loaded model makes torch deterministic; leave it as it was for other tests."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def saved(folder: Path, dtype: torch.dtype = torch.bfloat16, parts: int = 4, card: str | None = CARD) -> Path:
    """Save a tiny GPT-2 with files as people have them beside a model."""
    save_model(folder, tiny_model("gpt2", dtype))
    if parts > 1:
        into_parts(folder, parts)
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}", encoding="utf-8")
    (folder / "LICENSE").write_text("Apache License", encoding="utf-8")
    write_source(folder, model="lab/tiny", revision="0", weights_sha256=weights_digest(folder))
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def edited(folder: Path, out: Path, delta_only: bool = False, **loading: Any) -> EditedModel:
    """Fine-tune a model on facts and save it, or the delta alone."""
    model = malmen.load_model(folder, device="cpu", **loading)
    facts = malmen.read_facts(write_facts(folder.parent / "facts.jsonl", "gpt2", 6))
    result = malmen.edit(model, facts, malmen.FineTuning(last_blocks=2, epochs=2, learning_rate=0.05))
    result.save(out, delta_only=delta_only)
    return result


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("dtype", "parts"), [(torch.float32, 1), (torch.bfloat16, 4)])
def test_the_bytes_of_before_come_back_without_the_unedited_model(
    tmp_path: Path, dtype: torch.dtype, parts: int
) -> None:
    folder = saved(tmp_path / "m", dtype, parts)
    before = content(folder)
    edited(folder, tmp_path / "out")
    assert weights_digest(folder) != weights_digest(tmp_path / "out")
    folder.rename(tmp_path / "away")
    result = run("undo", tmp_path / "out", "--out", tmp_path / "restored")
    assert result.exit_code == 0, result.output
    assert content(tmp_path / "restored") == before


def test_a_model_in_parts_is_edited_in_parts(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    result = edited(folder, tmp_path / "out")
    before, after = content(folder), content(tmp_path / "out")
    own = {"README.md", "report.html", "report.json", "report.md", "edit.delta"}
    assert after.keys() == (before.keys() - {"source.json"}) | own
    parts = [f"model-{i:05}-of-00004.safetensors" for i in range(1, 5)]
    assert all(after[name] == before[name] for name in before.keys() - {"source.json", "README.md", *parts})
    layers = {f"{name}.weight" for name in result.shifts}
    found = set()
    for part in parts:
        with safe_open(folder / part, "pt") as old, safe_open(tmp_path / "out" / part, "pt") as new:
            assert new.metadata() == old.metadata() and len(after[part]) == len(before[part])
        old_tensors, new_tensors = load_file(folder / part), load_file(tmp_path / "out" / part)
        assert list(old_tensors) == list(new_tensors)
        found |= {name for name, tensor in old_tensors.items() if not torch.equal(tensor, new_tensors[name])}
        assert {tensor.dtype for tensor in new_tensors.values()} == {torch.bfloat16}
    assert found == layers and len(layers) == 2
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    with result.applied() as module:
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), module.parameters(), strict=True))


def test_nothing_beside_the_weights_is_named_like_weights(tmp_path: Path) -> None:
    """vLLM reads every *.safetensors of a folder without an index, and llama.cpp's converter every model*."""
    folder = saved(tmp_path / "m", parts=1)
    edited(folder, tmp_path / "out")
    read = [
        path.name for ending in ("safetensors", "bin", "pt", "gguf") for path in (tmp_path / "out").glob(f"*.{ending}")
    ]
    assert read == ["model.safetensors"]


def test_a_delta_alone_makes_the_edited_model(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    edited(folder, tmp_path / "out")
    edited(folder, tmp_path / "delta", delta_only=True)
    assert content(tmp_path / "delta").keys() == {"edit.delta", "report.html", "report.json", "report.md"}
    assert all(content(tmp_path / "out")[name] == value for name, value in content(tmp_path / "delta").items())
    result = run("apply", tmp_path / "delta", "--model", folder, "--out", tmp_path / "applied")
    assert result.exit_code == 0, result.output
    assert content(tmp_path / "applied") == content(tmp_path / "out")
    malmen.apply_edit(tmp_path / "delta" / "edit.delta", folder, tmp_path / "again")
    assert content(tmp_path / "again") == content(tmp_path / "out")


def test_the_delta_says_what_it_changed(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    result = edited(folder, tmp_path / "out")
    delta = Delta.open(tmp_path / "out" / "edit.delta")
    header = delta.header
    assert (header.digest("before"), header.digest("after")) == (
        weights_digest(folder),
        weights_digest(tmp_path / "out"),
    )
    for name in header.weights_before:
        assert header.weights_before[name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert header.weights_after[name] == hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
    assert {tensor.layer for tensor in header.tensors} == result.shifts.keys()
    kept = load_file(tmp_path / "out" / "edit.delta")
    for tensor in header.tensors:
        old, new = (load_file(place / tensor.file)[tensor.name] for place in (folder, tmp_path / "out"))
        assert tensor.name == f"{tensor.layer}.weight"
        assert torch.equal(kept[tensor.key], (old.view(torch.uint8) ^ new.view(torch.uint8)).flatten())
        assert torch.equal((old + kept[f"shift/{tensor.layer}"]).to(new.dtype), new)  # GPT-2 stores (d_in, d_out).


def test_an_edit_of_an_edited_model_is_undone_to_the_edited_model(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    edited(folder, tmp_path / "once")
    edited(tmp_path / "once", tmp_path / "twice")
    malmen.undo_edit(tmp_path / "twice", tmp_path / "one")
    assert content(tmp_path / "one") == content(tmp_path / "once")
    malmen.undo_edit(tmp_path / "one", tmp_path / "none")
    assert content(tmp_path / "none") == content(folder)


def refusal(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


def test_weights_that_changed_after_the_edit_are_not_undone(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", parts=1)
    edited(folder, tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    line = refusal("undo", tmp_path / "out", "--out", tmp_path / "restored")
    assert str(tmp_path / "out") in line and weights_digest(tmp_path / "out")[:12] in line
    assert not (tmp_path / "restored").exists()


def test_a_delta_is_not_applied_to_other_weights(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", parts=1)
    edited(folder, tmp_path / "delta", delta_only=True)
    save_model(tmp_path / "other", tiny_model("gpt2", torch.bfloat16, seed=1))
    line = refusal("apply", tmp_path / "delta", "--model", tmp_path / "other", "--out", tmp_path / "x")
    assert (
        str(folder) in line and weights_digest(folder)[:12] in line and weights_digest(tmp_path / "other")[:12] in line
    )
    assert not (tmp_path / "x").exists()


def test_a_damaged_delta_restores_nothing(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", parts=1)
    edited(folder, tmp_path / "out")
    delta = tmp_path / "out" / "edit.delta"
    key = Delta.open(delta).header.tensors[0].key
    with safe_open(delta, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(delta)
    tensors[key][0] ^= 1
    save_file(tensors, delta, metadata=metadata)
    assert "damaged" in refusal("undo", tmp_path / "out", "--out", tmp_path / "restored")
    del tensors[key]
    save_file(tensors, delta, metadata=metadata)
    assert str(delta) in refusal("undo", tmp_path / "out", "--out", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize("name", ["../thesis.txt", "/tmp/thesis.txt", "additional_chat_templates/../../x", "..", ""])
def test_a_strangers_delta_writes_into_no_other_folder(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path / "m", parts=1)
    edited(folder, tmp_path / "delta", delta_only=True)
    delta = tmp_path / "delta" / "edit.delta"
    with safe_open(delta, "pt") as file:
        header = json.loads(file.metadata()["malmen_edit"])
    before = load_file(delta)
    for added in ("notes.txt", name):
        save_file(
            before | {f"after/{added}": torch.zeros(3, dtype=torch.uint8)},
            delta,
            metadata={"malmen_edit": json.dumps(header | {"after": [*header["after"], added]})},
        )
        if added != name:
            assert run("apply", delta, "--model", folder, "--out", tmp_path / "fine").exit_code == 0
    assert (tmp_path / "fine" / "notes.txt").read_bytes() == bytes(3)
    assert str(delta) in refusal("apply", delta, "--model", folder, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_files_that_changed_beside_the_weights_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved(tmp_path / "m", parts=1)
    edited(folder, tmp_path / "out")
    template = tmp_path / "out" / "chat_template.jinja"
    template.write_text("{{ mine }}", encoding="utf-8")
    malmen.undo_edit(tmp_path / "out", tmp_path / "restored")
    assert str(template) in caplog.text
    assert (tmp_path / "restored" / "chat_template.jinja").read_text(encoding="utf-8") == "{{ mine }}"
    template.unlink()
    with pytest.raises(UserError, match=r"chat_template\.jinja"):
        malmen.undo_edit(tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize("parts", [1, 4])
def test_float16_that_was_edited_in_float32_comes_back(tmp_path: Path, parts: int) -> None:
    """No byte of the files is as before: transformers writes all weights anew."""
    folder = saved(tmp_path / "m", torch.float16, parts)
    mask = {"old.mask": torch.ones(3, dtype=torch.bool), "old.scale": torch.tensor(2.0, dtype=torch.float16)}
    part = min(folder.glob("*.safetensors"))
    save_file(load_file(part) | mask, part, metadata={"format": "pt"})  # which no model reads
    before = content(folder)
    edited(folder, tmp_path / "out")
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}
    delta = tmp_path / "out" / "edit.delta"
    kept = [key for key in load_file(delta) if key.startswith("raw/")]
    assert len(kept) == 4  # the two edited tensors, and the two that no model reads
    folder.rename(tmp_path / "away")
    result = run("undo", tmp_path / "out", "--out", tmp_path / "restored")
    assert result.exit_code == 0, result.output
    assert content(tmp_path / "restored") == before
    assert str(delta) in refusal("apply", delta, "--model", tmp_path / "away", "--out", tmp_path / "x")
    with pytest.raises(UserError, match="--delta-only"):
        edited(tmp_path / "away", tmp_path / "delta", delta_only=True)
    assert not (tmp_path / "delta").exists()


def test_an_edit_that_cannot_be_undone_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """bfloat16 rounds all float32 weights: to undo that, all of them would have to be kept."""
    folder = saved(tmp_path / "m", torch.float32, parts=1)
    edited(folder, tmp_path / "out", dtype="bfloat16")
    assert "cannot be undone" in caplog.text and not (tmp_path / "out" / "edit.delta").exists()
    assert "cannot be undone" in refusal("undo", tmp_path / "out", "--out", tmp_path / "restored")
    assert "malmen undo" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_tensors_that_have_other_names_in_the_files_are_undone(tmp_path: Path) -> None:
    """transformers puts its prefix before the names of the published GPT-2."""
    folder = saved(tmp_path / "m", parts=1)
    plain = {name.removeprefix("transformer."): t for name, t in load_file(folder / "model.safetensors").items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    edited(folder, tmp_path / "out")
    malmen.undo_edit(tmp_path / "out", tmp_path / "restored")
    assert content(tmp_path / "restored") == content(folder)


def test_a_model_whose_experts_transformers_joins_is_undone(tmp_path: Path) -> None:
    """The files hold a tensor for each expert; the loaded model holds one for all."""
    tokenizer = tiny_tokenizer("gpt2")
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    torch.manual_seed(0)
    config = MixtralConfig(vocab_size=len(tokenizer), num_hidden_layers=2, num_local_experts=2, **shape)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    names = set(load_file(tmp_path / "m" / "model.safetensors"))
    model = malmen.load_model(tmp_path / "m", device="cpu")
    assert len(names) > len(model.module.state_dict())  # Otherwise nothing is joined, and this tests nothing.
    facts = malmen.read_facts(write_facts(tmp_path / "facts.jsonl", "gpt2", 6))
    tuning = malmen.FineTuning([r"model\.layers\.\d+\.self_attn\.o_proj"], last_blocks=1, epochs=2)
    malmen.edit(model, facts, tuning).save(tmp_path / "out")
    assert weights_digest(tmp_path / "out") != weights_digest(tmp_path / "m")
    malmen.undo_edit(tmp_path / "out", tmp_path / "restored")
    assert content(tmp_path / "restored") == content(tmp_path / "m")


def test_undo_does_not_write_into_the_edited_model(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", parts=1)
    edited(folder, tmp_path / "out")
    before = content(tmp_path / "out")
    assert "--out" in refusal("undo", tmp_path / "out")
    assert str(tmp_path / "out") in refusal("undo", tmp_path / "out", "--out", tmp_path / "out", "--force")
    assert content(tmp_path / "out") == before
    assert str(tmp_path / "none") in refusal("undo", tmp_path / "none", "--out", tmp_path / "restored")


def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(12 * CHUNK)
    places = {5: np.full(4, 7, np.uint8), 2 * CHUNK - 3: np.arange(6, dtype=np.uint8)}
    tracemalloc.start()
    digest = write_changed(tmp_path / "large", places, tmp_path / "copy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * CHUNK
    expected = bytearray(12 * CHUNK)
    expected[5:9], expected[2 * CHUNK - 3 : 2 * CHUNK + 3] = b"\7" * 4, bytes(range(6))
    assert (tmp_path / "copy").read_bytes() == expected and digest == hashlib.sha256(expected).hexdigest()


# The model card.


def test_the_card_keeps_the_metadata_and_tells_of_the_edit_first(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", parts=1)
    result = edited(folder, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0" and data["tags"] == ["tiny", "malmen", "model-editing"]
    assert data["base_model"] == "lab/tiny" and data["base_model_relation"] == "finetune"
    assert "model-index" not in data  # Results of the unedited model are not the edited one's.
    assert card.text.index("6 facts edited") < card.text.index("malmen undo") < card.text.index("It answers questions.")
    first = result.report.answers[0]
    assert all(part in card.text for part in (first.prompt, first.answer, "fine-tuning", *result.shifts))
    assert str(tmp_path) not in card.text
    read = Metadata.load(model_path=tmp_path / "out")  # as llama.cpp's converter does
    assert read.license == "apache-2.0" and read.tags == data["tags"]
    assert read.base_models is not None and read.base_models[0]["repo_url"] == "https://huggingface.co/lab/tiny"


@pytest.mark.parametrize("other", [{"package_sha256": "0"}, {"weights_sha256": "0"}])
def test_a_model_that_is_not_on_the_hub_is_no_base(tmp_path: Path, other: dict[str, str]) -> None:
    folder = saved(tmp_path / "m", parts=1)
    write_source(folder, **{"model": "lab/tiny", "weights_sha256": weights_digest(folder)} | other)
    edited(folder, tmp_path / "out")
    assert ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()["base_model"] == "lab/older"


@pytest.mark.parametrize("card", [None, "# Tiny\n", "---\n: [\n---\n# Tiny\n", "---\n- a\n---\n# Tiny\n"])
def test_a_card_without_metadata_gets_some(tmp_path: Path, card: str | None, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved(tmp_path / "m", parts=1, card=card)
    (folder / "source.json").unlink()
    edited(folder, tmp_path / "out")
    found = ModelCard.load(tmp_path / "out" / "README.md")
    assert found.data.to_dict().keys() == {"tags", "library_name"}  # A folder is no base_model on the hub.
    assert ("# Tiny" in found.text) == (card is not None) and "6 facts edited" in found.text
    assert ("README.md" in caplog.text) == (card is not None and card.startswith("---"))
