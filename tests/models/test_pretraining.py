"""Training tiny models: they learn, and the same seed gives the same bytes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_models import ARCHITECTURES, SHAPES, TWO_STACKS, edit_tuples, tiny_model, tiny_tokenizer

from malmen.config.base import Architecture
from malmen.config.optimisation import OptimisationSettings
from malmen.config.scratch import ScratchSettings
from malmen.errors import UserError
from malmen.models.objectives import causal_loss, hide_tokens, neighbour_loss, objective, pad
from malmen.models.pretraining import accuracy, finetune, minibatches, pretrain, warm_up_then_decay
from malmen.models.scratch import new_model, train_tokenizer

QUICK = OptimisationSettings(epochs=1, batch_size=8, learning_rate=1e-3)


def documents(architecture: Architecture) -> list[list[str]]:
    """Return documents of three lines: what edit tuples call equivalent."""
    return [[item.edit.prompt, *item.equivalent][:3] for item in edit_tuples(architecture, 28)]


def text(architecture: Architecture) -> list[str]:
    return [line for document in documents(architecture) for line in document]


def test_a_bert_reads_lower_case_between_cls_and_sep() -> None:
    tokenizer = tiny_tokenizer("bert")
    ids = tokenizer("CLEO wrote a song.")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "cleo wrote a song."
    assert len({tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.unk_token_id, *ids[:1], *ids[-1:]}) == 5


def test_no_piece_of_a_word_is_a_special_token_of_a_bert() -> None:
    tokenizer = train_tokenizer(["aba abab ba"] * 3, SHAPES["bert"])
    assert {"##a", "##b"} < set(tokenizer.get_vocab())
    assert len(tokenizer.all_special_tokens) == len(tokenizer.get_added_vocab()) == 5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_text_gives_the_same_vocabulary(architecture: Architecture) -> None:
    # A trainer that iterates over hash tables gives a different one almost every time.
    vocabularies = [train_tokenizer(text(architecture), SHAPES[architecture]).get_vocab() for _ in range(4)]
    assert vocabularies == [vocabularies[0]] * 4


@pytest.mark.parametrize("architecture", ["gpt2", "gptj"])
def test_a_gpt_reads_any_text_as_it_is(architecture: Architecture) -> None:
    tokenizer = tiny_tokenizer(architecture)
    for line in (" Cleo wrote A song?", "ünïcödé, 漢字\n\ttab"):
        assert tokenizer.decode(tokenizer(line)["input_ids"]) == line
    assert tokenizer.eos_token_id == tokenizer.pad_token_id is not None


@pytest.mark.parametrize("architecture, before", [("t5", []), ("bart", ["<s>"])])
def test_an_encoder_decoder_frames_a_text_and_reads_its_first_word_like_any_other(
    architecture: Architecture, before: list[str]
) -> None:
    tokenizer = tiny_tokenizer(architecture)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("Cleo ünïcödé, 漢字")["input_ids"])
    assert (pieces[: len(before)], pieces[-1]) == (before, "</s>")
    decoded = tokenizer.decode(tokenizer("Cleo ünïcödé, 漢字")["input_ids"], skip_special_tokens=True)
    assert decoded == " Cleo ünïcödé, 漢字"
    again = tokenizer.convert_ids_to_tokens(tokenizer("Where Cleo")["input_ids"])
    assert [piece for piece in again if "Cleo" in piece or "leo" in piece] == [
        piece for piece in pieces if "Cleo" in piece or "leo" in piece
    ]
    assert tokenizer.eos_token_id != tokenizer.pad_token_id == {"t5": 0, "bart": 1}[architecture]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_has_the_shape_that_was_asked_for(architecture: Architecture) -> None:
    shape = ScratchSettings(architecture, layers=1, hidden_size=24, heads=3, vocabulary=300, max_length=20)
    tokenizer = train_tokenizer(text(architecture), shape)
    config = new_model(shape, tokenizer).config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (1, 24, 3)
    if architecture != "t5":  # Its positions are relative.
        assert config.max_position_embeddings == 20
    assert (architecture in TWO_STACKS) == config.is_encoder_decoder
    assert config.vocab_size == len(tokenizer) <= 300


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_seed_gives_the_same_bytes(architecture: Architecture, tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        torch.rand(1)  # What was drawn before must not matter.
        module, tokenizer = pretrain(documents(architecture), SHAPES[architecture], QUICK, seed)
        module.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again", "other")]
    assert weights[0] == weights[1] != weights[2]
    assert (tmp_path / "first" / "tokenizer.json").read_bytes() == (tmp_path / "again" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pretraining_lowers_the_loss(architecture: Architecture) -> None:
    def loss_after(epochs: int) -> float:
        settings = OptimisationSettings(epochs=epochs, batch_size=8, learning_rate=3e-3)
        module, tokenizer = pretrain(documents(architecture), SHAPES[architecture], settings, 0)
        assert not module.training and not any(p.requires_grad for p in module.parameters())
        lines = tokenizer(text(architecture))["input_ids"]
        if architecture != "bert":
            return objective(module, tokenizer, SHAPES[architecture], 0)([[line] for line in lines]).item()
        ids, mask = pad(lines, tokenizer.pad_token_id)
        shown, hidden = hide_tokens(ids, mask, tokenizer, torch.Generator().manual_seed(0))
        logits = module(input_ids=shown, attention_mask=mask).logits
        return F.cross_entropy(logits[hidden], ids[hidden]).item()

    assert loss_after(12) < 0.8 * loss_after(1)


def test_the_cls_of_a_line_comes_to_tell_its_neighbour() -> None:
    def loss_with(coefficient: float) -> float:
        settings = OptimisationSettings(epochs=40, batch_size=8, learning_rate=1e-2)
        shape = replace(SHAPES["bert"], neighbour_coefficient=coefficient)
        module, tokenizer = pretrain(documents("bert"), shape, settings, 0)
        ids, mask = pad(tokenizer(text("bert"))["input_ids"], tokenizer.pad_token_id)
        cls = module.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        return neighbour_loss(cls[0::3], cls[1::3]).item()

    assert loss_with(1.0) < 0.8 * loss_with(0.0)


def test_the_neighbour_loss_is_that_of_a_classifier_over_cosines() -> None:
    first, second = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = torch.cosine_similarity(first[:, None], second[None], dim=2) / 0.1
    rows, columns = scores.log_softmax(1).diagonal(), scores.log_softmax(0).diagonal()
    torch.testing.assert_close(neighbour_loss(first, second), -(rows + columns).mean() / 2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fine_tuning_makes_a_model_know_and_is_reproducible(architecture: Architecture) -> None:
    taught = [item.edit for item in edit_tuples(architecture, 14)]
    settings = OptimisationSettings(epochs=60, batch_size=7, learning_rate=1e-2)
    states = []
    for _ in range(2):
        torch.rand(1)
        model = tiny_model(architecture, torch.float32)
        before = accuracy(model, taught, 4)
        after = finetune(model, taught, settings, seed=0)
        assert after == accuracy(model, taught, 14) > before + 0.2
        assert not model.module.training and not any(p.requires_grad for p in model.module.parameters())
        states.append(model.module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_causal_loss_is_hugging_faces_and_ignores_padding() -> None:
    model = tiny_model("gpt2")
    lines = model.tokenizer(text("gpt2")[:3])["input_ids"]
    ids, mask = pad(lines, model.tokenizer.pad_token_id)
    labels = torch.where(mask.bool(), ids, -100)
    expected = model.module(input_ids=ids, attention_mask=mask, labels=labels).loss.item()
    assert causal_loss(model.module, ids, mask).item() == pytest.approx(expected, rel=1e-6)


def test_15_percent_are_hidden_as_bert_does() -> None:
    tokenizer = tiny_tokenizer("bert")
    line = tokenizer(" ".join(text("bert")[0].split() * 9), truncation=True, max_length=60)["input_ids"]
    ids, mask = pad([line, line[:40]] * 300, tokenizer.pad_token_id)
    shown, hidden = hide_tokens(ids, mask, tokenizer, torch.Generator().manual_seed(0))
    fixed = (mask == 0) | (ids == tokenizer.cls_token_id) | (ids == tokenizer.sep_token_id)
    changed = shown != ids
    assert not (hidden & fixed).any()
    assert not (changed & ~hidden).any()
    n_ordinary, n_hidden = (~fixed).sum().item(), hidden.sum().item()
    masked = (shown == tokenizer.mask_token_id).sum().item()
    assert n_hidden / n_ordinary == pytest.approx(0.15, abs=0.01)
    assert masked / n_hidden == pytest.approx(0.8, abs=0.03)
    assert (changed.sum().item() - masked) / n_hidden == pytest.approx(0.1, abs=0.03)


def test_no_text_is_refused() -> None:
    with pytest.raises(UserError, match="There is no text to pretrain on"):
        pretrain([], SHAPES["gpt2"], QUICK, 0)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    model = tiny_model("gpt2", torch.float32)
    model.module.get_parameter("transformer.ln_f.weight").fill_(torch.inf)
    with pytest.raises(UserError, match="loss of fine-tuning Tiny stopped being finite at step 1; lower its"):
        finetune(model, [item.edit for item in edit_tuples("gpt2", 4)], QUICK, 0, label="Tiny")


def test_minibatches_hold_everything_once_an_epoch_in_a_new_order() -> None:
    settings = OptimisationSettings(epochs=3, batch_size=4)
    batches = list(minibatches(range(10), settings, seed=0))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    epochs = [[i for batch in batches[start : start + 3] for i in batch] for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_learning_rate_warms_up_and_decays() -> None:
    factors = [warm_up_then_decay(step, 100) for step in range(101)]
    assert factors[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors[100] == 0
    assert [warm_up_then_decay(step, 1) for step in (0, 1)] == [1, 0]
