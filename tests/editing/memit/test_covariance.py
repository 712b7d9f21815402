"""The covariance of keys, against its definition."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_models import FFN, ffn_layers, save_model, tiny_model
from torch import Tensor

from malmen.config.memit import CovarianceSettings, MemitEditorSettings, MemitSettings
from malmen.editing.layers import EditedLayer
from malmen.editing.memit.covariance import (
    CollectedFrom,
    KeyCovariance,
    collect_key_covariance,
    encode_texts,
    write_key_covariance,
)
from malmen.errors import UserError
from malmen.jobs.collect_covariance import collect_covariance
from malmen.jobs.common import Machine, ModelSpec
from malmen.models.identity import weights_digest
from malmen.models.language_model import LanguageModel

TEXTS = [
    "Ada Lund wrote a song in Cor.",
    "Est",
    "The third novel, by Cleo, is a very long play. " * 4,
    "Where is Bram?",
]


def keys_of(model: LanguageModel, layer: EditedLayer, sequences: list[tuple[int, ...]]) -> Tensor:
    """Return a layer's inputs at every token of sequences that are run one by one."""
    seen: list[Tensor] = []
    with layer.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0])):
        for sequence in sequences:
            model.module(input_ids=torch.tensor([sequence]))
    return torch.cat(seen)


@pytest.mark.parametrize("max_tokens", [5, 40, 1000])
def test_the_covariance_is_the_mean_of_k_k_t_over_the_first_tokens(gpt2: LanguageModel, max_tokens: int) -> None:
    sequences = list(encode_texts(gpt2, TEXTS, max_tokens))
    tokens = [token for text in TEXTS for token in gpt2.tokenizer(text)["input_ids"]]
    assert [token for sequence in sequences for token in sequence.tokens] == tokens[:max_tokens]
    assert max(len(sequence.tokens) for sequence in sequences) <= 64
    covariance, n_tokens = collect_key_covariance(gpt2, ffn_layers(gpt2), sequences, 2)
    assert n_tokens == min(max_tokens, len(tokens))
    for layer in ffn_layers(gpt2):
        keys = keys_of(gpt2, layer, [sequence.tokens for sequence in sequences])
        expected = sum(torch.outer(key, key) for key in keys) / len(keys)
        torch.testing.assert_close(covariance[layer.name], expected, atol=1e-12, rtol=1e-9)


def test_batches_change_nothing_but_rounding(gpt2: LanguageModel) -> None:
    layers = ffn_layers(gpt2)
    one, many = (
        collect_key_covariance(gpt2, layers, encode_texts(gpt2, TEXTS, 1000), batch_size)[0] for batch_size in (1, 8)
    )
    for layer in layers:
        torch.testing.assert_close(one[layer.name], many[layer.name], atol=1e-12, rtol=1e-9)


def test_a_text_longer_than_the_model_reads_is_cut_into_pieces(gpt2: LanguageModel) -> None:
    gpt2.module.config.max_position_embeddings = 8
    tokens = gpt2.tokenizer(TEXTS[2])["input_ids"]
    pieces = [sequence.tokens for sequence in encode_texts(gpt2, [TEXTS[2]], 20)]
    assert pieces == [tuple(tokens[:8]), tuple(tokens[8:16]), tuple(tokens[16:20])]


def test_a_file_gives_back_what_was_written(gpt2: LanguageModel, tmp_path: Path) -> None:
    layers = ffn_layers(gpt2)
    covariance, _ = collect_key_covariance(gpt2, layers, encode_texts(gpt2, TEXTS, 1000), 2)
    path = tmp_path / "c.safetensors"
    write_key_covariance(path, covariance, {"tokens": 7, "source": "a text"})
    opened = KeyCovariance.open(path, layers)
    assert opened.about == {"tokens": 7, "source": "a text"}
    assert list(opened) == [layer.name for layer in layers] and len(opened) == 2
    for layer in layers:
        assert torch.equal(opened[layer.name], covariance[layer.name].float())
    with pytest.raises(KeyError):
        opened["lm_head"]


def test_a_file_of_something_else_is_refused(gpt2: LanguageModel, tmp_path: Path) -> None:
    path, layers = tmp_path / "c.safetensors", ffn_layers(gpt2)
    for missing in (tmp_path / "none", Path(__file__)):
        with pytest.raises(UserError, match="covariance"):
            KeyCovariance.open(missing, layers)
    save_file({layers[0].name: torch.eye(64)}, path)
    with pytest.raises(UserError, match="covariance"):
        KeyCovariance.open(path, layers)
    write_key_covariance(path, {layers[0].name: torch.eye(64), layers[1].name: torch.eye(9)}, {})
    with pytest.raises(UserError, match=f"layer {layers[1].name}"):
        KeyCovariance.open(path, layers)


def spec_and_settings(folder: Path) -> tuple[ModelSpec, MemitEditorSettings]:
    """Save a model; return it, and an editor of two of its layers."""
    model = tiny_model("gpt2", torch.float32)
    save_model(folder / "model", model)
    spec = ModelSpec("gpt2", "GPT-2", "zsre", "question_answering", "float32", folder / "model", FFN["gpt2"])
    memit = MemitSettings(covariance=CovarianceSettings(max_tokens=30))
    return spec, MemitEditorSettings(label="MEMIT", blocks=(0, 2), memit=memit)


def test_the_step_writes_the_same_file_each_time_and_says_what_it_is_of(tmp_path: Path) -> None:
    spec, settings = spec_and_settings(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("\n".join([TEXTS[0], TEXTS[1], "", TEXTS[2], ""]), encoding="utf-8")
    for name in ("a", "b"):
        collect_covariance(spec, settings, text, tmp_path / name, Machine())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    model = spec.load(Machine())
    layers = [ffn_layers(model, last=3)[i] for i in (0, 2)]
    covariance = KeyCovariance.open(tmp_path / "a", layers)
    collected = CollectedFrom("gpt2", weights_digest(spec.directory), 30, "text.txt")
    assert CollectedFrom.read(tmp_path / "a") == collected and covariance.about == asdict(collected)
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert set(file.keys()) == {layer.name for layer in layers}
    sequences = [sequence.tokens for sequence in encode_texts(model, TEXTS[:3], 30)]
    keys = keys_of(model, layers[1], sequences)
    torch.testing.assert_close(covariance[layers[1].name], keys.T @ keys / 30, atol=1e-5, rtol=1e-5)


def test_no_text_is_one_sentence(tmp_path: Path) -> None:
    spec, settings = spec_and_settings(tmp_path)
    text = tmp_path / "text.txt"
    with pytest.raises(UserError, match="cannot be read as text"):
        collect_covariance(spec, settings, text, tmp_path / "a", Machine())
    text.write_text("\n\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds no text"):
        collect_covariance(spec, settings, text, tmp_path / "a", Machine())
    assert not (tmp_path / "a").exists()


def test_wikipedia_is_read_from_the_pinned_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for the package: what is asked of the hub, and that articles reach the covariance."""
    asked: list[tuple[object, ...]] = []

    class Stream(list[dict[str, str]]):
        def shuffle(self, seed: int, buffer_size: int) -> "Stream":
            asked.append(("shuffle", seed, buffer_size > 1))
            return Stream(reversed(self))

    def load_dataset(name: str, dump: str, *, split: str, revision: str, streaming: bool) -> Stream:
        asked.append((name, dump, split, revision, streaming))
        return Stream([{"text": text} for text in TEXTS])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    spec, settings = spec_and_settings(tmp_path)
    wikipedia = CovarianceSettings(source="wikipedia", max_tokens=30, revision="0123", seed=5)
    settings = replace(settings, memit=replace(settings.memit, covariance=wikipedia))
    collect_covariance(spec, settings, None, tmp_path / "wikipedia", Machine())
    assert asked == [("wikimedia/wikipedia", "20231101.en", "train", "0123", True), ("shuffle", 5, True)]
    text = tmp_path / "text.txt"
    text.write_text("\n".join(reversed(TEXTS)), encoding="utf-8")
    collect_covariance(spec, settings, text, tmp_path / "text", Machine())
    layers = [ffn_layers(spec.load(Machine()), last=3)[i] for i in (0, 2)]
    streamed, local = (KeyCovariance.open(tmp_path / name, layers) for name in ("wikipedia", "text"))
    assert all(torch.equal(streamed[layer.name], local[layer.name]) for layer in layers)
    assert streamed.about["source"] == "wikimedia/wikipedia 20231101.en at 0123, seed 5"
