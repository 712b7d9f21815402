"""Encoding, losses and divergences against Hugging Face's own forward pass and torch.distributions."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from tiny_models import TWO_STACKS, architecture_of, edit_tuples, tiny_model
from tokenizers.normalizers import Replace
from torch.distributions import Bernoulli, Categorical, kl_divergence
from transformers.activations import NewGELUActivation

from malmen.config.base import Architecture
from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError
from malmen.models.activations import fuse_activations
from malmen.models.encoding import UnreadableError
from malmen.models.language_model import LanguageModel
from malmen.models.tasks import FactChecking, QuestionAnswering


def pairs(model: LanguageModel, n: int) -> list[PromptAnswer]:
    return [item.edit for item in edit_tuples(architecture_of(model), n)]


def test_a_question_is_prompt_space_and_answer_without_its_last_token(gpt2: LanguageModel) -> None:
    (example,) = gpt2.encode([PromptAnswer("Where did Cleo write a song?", "the Isle of Bel")])
    prompt = gpt2.tokenizer("Where did Cleo write a song?")["input_ids"]
    answer = gpt2.tokenizer(" the Isle of Bel")["input_ids"]
    assert len(answer) > 2
    assert example.tokens == (*prompt, *answer[:-1])
    assert example.targets == tuple(answer)
    # Each answer position stands one before the token that it outputs.
    assert example.answer_positions == tuple(range(len(prompt) - 1, len(prompt) - 1 + len(answer)))
    assert gpt2.tokenizer.decode([*example.tokens, answer[-1]]) == "Where did Cleo write a song? the Isle of Bel"


@pytest.mark.parametrize("architecture", ["gpt2", "gptj"])
def test_answer_logits_and_loss_are_those_of_the_full_forward_pass(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    for pair in pairs(model, 5):
        (example,) = model.encode([pair])
        (batch,) = model.batches([example], 1)
        whole = [*example.tokens, example.targets[-1]]
        labels = [-100] * (len(whole) - len(example.targets)) + list(example.targets)
        full = model.module(input_ids=torch.tensor([whole]), labels=torch.tensor([labels]))
        torch.testing.assert_close(model.answer_logits(batch), full.logits[0, list(example.answer_positions)])
        assert model.loss(batch).item() == pytest.approx(full.loss.item(), rel=1e-6)  # Its own loss is in float32.


@pytest.mark.parametrize("architecture", TWO_STACKS)
def test_of_two_stacks_the_encoder_reads_the_prompt_and_the_decoder_gives_the_answer(
    architecture: Architecture,
) -> None:
    model = tiny_model(architecture)
    (example,) = model.encode([PromptAnswer("Where did Cleo write a song?", "the Isle of Bel")])
    answer = model.tokenizer("the Isle of Bel", add_special_tokens=False)["input_ids"]
    begin = [model.tokenizer.bos_token_id] if architecture == "bart" else []
    assert len(answer) > 2
    assert example.tokens == tuple(model.tokenizer("Where did Cleo write a song?")["input_ids"])
    assert example.tokens[-1] == model.tokenizer.eos_token_id
    assert example.targets == tuple(answer)
    assert example.decoder_tokens == (model.module.config.decoder_start_token_id, *begin, *answer[:-1])
    assert example.answer_positions == tuple(range(len(begin), len(begin) + len(answer)))


def test_a_t5_begins_to_answer_with_token_0() -> None:
    model = tiny_model("t5")
    assert {example.decoder_tokens[0] for example in model.encode(pairs(model, 5))} == {0}


@pytest.mark.parametrize("architecture", TWO_STACKS)
def test_answer_logits_and_loss_of_two_stacks_are_those_of_transformers_with_labels(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    examples = model.encode(pairs(model, 12))
    (batch,) = model.batches(examples, 12)
    ordered = sorted(examples, key=lambda example: (len(example.tokens), len(example.decoder_tokens)))
    labels = torch.full_like(batch.inputs["decoder_input_ids"], -100)
    for row, example in zip(labels, ordered, strict=True):
        row[list(example.answer_positions)] = torch.tensor(example.targets)
    if architecture == "bart":  # Its decoder is shown <s>, whose loss is not counted.
        shown = labels.masked_fill(torch.arange(labels.shape[1]) == 0, model.tokenizer.bos_token_id)
        start = torch.full((12, 1), model.module.config.decoder_start_token_id)
        inputs = {"decoder_input_ids": torch.cat((start, shown[:, :-1].clamp(min=0)), 1)}
    else:
        inputs = {}
    encoder = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    full = model.module(**encoder, **inputs, labels=labels)
    torch.testing.assert_close(model.answer_logits(batch), full.logits[labels != -100])
    assert model.loss(batch).item() == pytest.approx(full.loss.item(), rel=1e-6)


@pytest.mark.parametrize("scaled", [True, False], ids=["version 1.0", "version 1.1"])
def test_a_t5s_output_head_is_scaled_as_its_version_asks(scaled: bool) -> None:
    model = tiny_model("t5")
    module: Any = model.module
    module.config.scale_decoder_outputs = scaled
    if not scaled:  # Version 1.1 has a head of its own.
        head = torch.randn(module.lm_head.weight.shape, generator=torch.Generator().manual_seed(1))
        module.lm_head.weight = torch.nn.Parameter(head.double(), requires_grad=False)
    (batch,) = model.batches(model.encode(pairs(model, 8)), 8)
    encoded = module.encoder(batch.inputs["input_ids"], batch.inputs["attention_mask"]).last_hidden_state
    hidden = module.decoder(
        batch.inputs["decoder_input_ids"],
        encoder_hidden_states=encoded,
        encoder_attention_mask=batch.inputs["attention_mask"],
    ).last_hidden_state
    factor = module.config.d_model**-0.5 if scaled else 1.0
    expected = factor * hidden.flatten(0, 1)[batch.answer_rows] @ module.lm_head.weight.T
    torch.testing.assert_close(model.answer_logits(batch), expected)


@pytest.mark.parametrize("architecture", ["t5", "gptj"])
def test_the_tiny_models_of_these_tests_compute_what_transformers_does(architecture: Architecture) -> None:
    ours, theirs = tiny_model(architecture), tiny_model(architecture, torch.float32)
    logits = [m.answer_logits(next(m.batches(m.encode(pairs(m, 8)), 8))) for m in (ours, theirs)]
    torch.testing.assert_close(logits[0].float(), logits[1], rtol=1e-2, atol=1e-2)


def test_a_claim_is_answered_at_cls_with_one_for_supports(bert: LanguageModel) -> None:
    supported, refuted = bert.encode([PromptAnswer("Cleo wrote a song.", a) for a in ("SUPPORTS", "REFUTES")])
    assert (supported.targets, refuted.targets) == ((1,), (0,))
    assert supported.answer_positions == (0,)
    assert supported.tokens[0] == bert.tokenizer.cls_token_id
    assert supported.tokens[-1] == bert.tokenizer.sep_token_id
    (batch,) = bert.batches([supported, refuted], 2)
    log_odds = bert.module(**batch.inputs)
    torch.testing.assert_close(bert.answer_logits(batch), log_odds, rtol=1e-13, atol=0)
    likelihood = Bernoulli(logits=log_odds[:, 0]).log_prob(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert bert.loss(batch).item() == pytest.approx(-likelihood.mean().item())


def test_a_claim_that_is_too_long_keeps_its_cls(bert: LanguageModel) -> None:
    (example,) = bert.encode([PromptAnswer("Cleo wrote a song. " * 50, "SUPPORTS")])
    assert bert.limit and len(example.tokens) == bert.limit.tokens == 64
    assert "64" in example.remark
    assert example.tokens[0] == bert.tokenizer.cls_token_id


def test_another_answer_than_a_fever_label_is_refused(bert: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"The answer of claim 'Cleo\.' is 'maybe'; allowed are SUPPORTS and REFUTES\."):
        bert.encode([PromptAnswer("Cleo.", "maybe")])


@pytest.mark.parametrize("prompt, answer", [("Cor" * 99, "Est"), ("Who?", "Cor" * 99)])
def test_what_is_too_long_for_either_stack_is_refused(prompt: str, answer: str) -> None:
    with pytest.raises(UserError, match=r"tokens.* 64"):
        tiny_model("bart").encode([PromptAnswer(prompt, answer)])


def test_a_question_that_is_too_long_is_refused(gpt2: LanguageModel) -> None:
    fitting = next(n for n in range(1, 99) if len(gpt2.tokenizer("Cor" * (n + 1))["input_ids"]) > 64)
    (example,) = gpt2.encode([PromptAnswer("Cor" * fitting, "Cor")])
    assert len(example.tokens) <= 64
    with pytest.raises(UserError, match=r"tokens.* 64"):
        gpt2.encode([PromptAnswer("Cor" * fitting, "New Dunmore by the Sea " * 3)])


@pytest.mark.parametrize(
    "architecture, prompt, answer", [("gpt2", "\x00", "me"), ("t5", "\x00", "me"), ("bart", "Who?", "\x00")]
)
def test_a_question_without_tokens_is_refused(architecture: Architecture, prompt: str, answer: str) -> None:
    model = tiny_model(architecture)
    tokenizer: Any = model.tokenizer
    tokenizer.backend_tokenizer.normalizer = Replace("\x00", "")
    with pytest.raises(UnreadableError, match="has no tokens"):
        model.encode_one(PromptAnswer(prompt, answer))


def test_the_binary_divergence_is_that_of_bernoulli_distributions() -> None:
    before = torch.tensor([[0.3], [-2.0], [40.0], [-40.0]], dtype=torch.float64)
    after = torch.tensor([[-1.0], [-2.0], [38.0], [5.0]], dtype=torch.float64)
    expected = kl_divergence(Bernoulli(logits=before), Bernoulli(logits=after)).squeeze(1)
    torch.testing.assert_close(FactChecking().divergence(before, after), expected, rtol=1e-6, atol=1e-12)
    far_apart = FactChecking().divergence(torch.zeros(1, 1), torch.full((1, 1), 200.0))
    assert far_apart.item() == pytest.approx(100 - math.log(2))


def test_the_divergence_of_answers_is_that_of_categorical_distributions() -> None:
    before, after = torch.randn(2, 6, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = kl_divergence(Categorical(logits=before), Categorical(logits=after))
    torch.testing.assert_close(QuestionAnswering().divergence(before, after), expected)


@pytest.mark.parametrize("task", [FactChecking(), QuestionAnswering()])
def test_losses_of_half_precision_logits_are_in_float32(task: FactChecking | QuestionAnswering) -> None:
    logits = torch.randn(5, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).bfloat16()
    assert task.divergence(logits, 2 * logits).dtype == torch.float32
    assert task.negative_log_likelihood(logits, torch.zeros(5, dtype=torch.long)).dtype == torch.float32


@pytest.mark.parametrize("n, virtual_batches", [(1, 1), (32, 1), (33, 2), (70, 3)])
def test_weights_average_over_the_answer_rows_of_each_32_examples(
    model: LanguageModel, n: int, virtual_batches: int
) -> None:
    examples = model.encode(pairs(model, n))
    assert sum(e.weight * len(e.targets) for e in examples) == pytest.approx(virtual_batches, rel=1e-12)
    last = examples[32 * (virtual_batches - 1) :]
    assert {e.weight for e in last} == {1 / sum(len(e.targets) for e in last)}
    batches = list(model.batches(examples, 7))
    assert sum(b.weights.sum().item() for b in batches) == pytest.approx(virtual_batches, rel=1e-12)
    torch.testing.assert_close(
        batches[0].weights, torch.tensor([examples[i].weight for i in batches[0].examples]).double()
    )


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_cover_every_example_once(model: LanguageModel, size: int) -> None:
    examples = model.encode(pairs(model, 40))
    rows: Counter[int] = Counter()
    for batch in model.batches(examples, size):
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        answering = batch.inputs["decoder_input_ids"] if model.two_stacks else ids
        owners = batch.examples.unique(sorted=False).tolist()
        assert len(ids) <= size and len(set(owners)) == len(ids)
        rows.update(batch.examples.tolist())
        for b, owner in enumerate(dict.fromkeys(batch.examples.tolist())):
            example = examples[owner]
            assert tuple(ids[b][mask[b].bool()].tolist()) == example.tokens
            mine = batch.examples == owner
            positions = batch.answer_rows[mine] - b * answering.shape[1]
            assert tuple(positions.tolist()) == example.answer_positions
            assert tuple(batch.targets[mine].tolist()) == example.targets
        assert torch.equal(ids.flatten()[batch.attended_rows()], ids[mask.bool()])
        if model.two_stacks:
            decoder = [examples[owner].decoder_tokens for owner in dict.fromkeys(batch.examples.tolist())]
            said = answering.flatten()[batch.attended_rows(in_decoder=True)].tolist()
            assert said == [token for tokens in decoder for token in tokens]
    assert rows == {i: len(example.targets) for i, example in enumerate(examples)}


def test_loss_and_divergence_do_not_depend_on_the_physical_batch(model: LanguageModel) -> None:
    examples = model.encode(pairs(model, 40))
    other = tiny_model(architecture_of(model), seed=1)
    losses = [sum(model.loss(b).item() for b in model.batches(examples, size)) for size in (1, 7, 40)]
    divergences = [
        sum(model.divergence(b, other.answer_logits(b)).item() for b in model.batches(examples, size))
        for size in (1, 7, 40)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-12)
    assert divergences == pytest.approx([divergences[0]] * 3, rel=1e-12)
    assert divergences[0] > 0.01


def test_a_model_is_frozen_and_evaluating(model: LanguageModel) -> None:
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert model.device == torch.device("cpu")


def test_the_fused_gelu_has_the_values_and_slopes_of_the_written_out_one() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(1, 1), NewGELUActivation())
    x = torch.linspace(-9, 9, 1001, dtype=torch.float64, requires_grad=True)
    plain = module[1](x)
    fuse_activations(module)
    assert not isinstance(module[1], NewGELUActivation)
    fused = module[1](x)
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (fused, plain)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


def test_no_model_computes_a_written_out_gelu(model: LanguageModel) -> None:
    assert not [child for child in model.module.modules() if isinstance(child, NewGELUActivation)]
