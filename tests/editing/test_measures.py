"""Stricter measures, against loops that decode and compare one token at a time."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from later_models import FAMILIES, WINDOW, InFloat64, later_model
from tiny_models import PLACES, architecture_of, edit_tuples, encoded_group, ffn_layers, tiny_model
from torch import Tensor

from malmen.config.base import Architecture
from malmen.data.tuples import EditTuple, PromptAnswer, Triple
from malmen.editing.decoded import MORE, decode_answers
from malmen.editing.evaluation import score
from malmen.editing.exact_match import exact_match, normalised
from malmen.editing.measures import StrictMeasures
from malmen.editing.training import draw_equivalent
from malmen.errors import DivergedError
from malmen.models.generation import text_of
from malmen.models.greedy import Opening, decode
from malmen.models.language_model import Example, LanguageModel
from malmen.models.perplexity import LARGEST, perplexity, text_examples
from malmen.results.rounds import MEASURES

MODELS: tuple[Architecture, ...] = ("gpt2", "gptj", "t5", "bart")
DECODED = [f"{way}_{kind}" for way in ("own", "free") for kind in ("ES", "GS", "LS")]
TWO_ANSWERS = [f"{way}_{kind}" for way in ("larger_logit", "likelier") for kind in ("ES", "GS", "LS")]


def with_truth(tuples: Sequence[EditTuple]) -> list[EditTuple]:
    """Return the tuples with another place as the true answer."""
    return [replace(item, truth=PLACES[(PLACES.index(item.edit.answer) + 1) % len(PLACES)]) for item in tuples]


def disturb(model: LanguageModel, size: float = 0.3) -> None:
    """Change the weights of some layers."""
    generator = torch.Generator().manual_seed(1)
    for layer in ffn_layers(model):
        module: Any = layer.module
        weight: Tensor = module.weight
        weight.data += size * torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.dtype)


@torch.no_grad()
def next_logits(model: LanguageModel, example: Example, decoded: Sequence[int]) -> Tensor:
    """Return the logits after an example's prompt and some tokens, run as a whole without a cache, (vocabulary,)."""
    module: Any = model.module
    first = example.answer_positions[0] + 1
    if model.two_stacks:
        output = module(
            input_ids=torch.tensor([example.tokens]),
            decoder_input_ids=torch.tensor([[*example.decoder_tokens[:first], *decoded]]),
        )
    else:
        output = module(torch.tensor([[*example.tokens[:first], *decoded]]), use_cache=False)
    logits: Tensor = output.logits[0, -1]
    return logits


def one_by_one(model: LanguageModel, example: Example, number: int) -> list[int]:
    tokens: list[int] = []
    for _ in range(number):
        tokens.append(int(next_logits(model, example, tokens).argmax()))
    return tokens


# Decoding.


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("batch_size", [1, 5, "auto"])
def test_decoding_is_that_of_one_token_at_a_time(architecture: Architecture, batch_size: Any) -> None:
    model = tiny_model(architecture)
    examples = encoded_group(model, 28).edit
    wanted = {Opening.of_example(model, example): 2 + i % 6 for i, example in enumerate(examples)}
    found = decode(model, wanted, batch_size)
    assert len({tuple(tokens) for tokens in found.values()}) > 3
    for example in examples:
        opening = Opening.of_example(model, example)
        assert found[opening] == one_by_one(model, example, wanted[opening])


@pytest.mark.parametrize("family", FAMILIES)
def test_later_families_are_decoded_alike(family: str) -> None:
    """Sequences go on beyond the windows of sliding attention."""
    with InFloat64():
        model = later_model(family)
        examples = [model.encode_one(item.edit) for item in edit_tuples("gpt2", 6)]
        wanted = {Opening.of_example(model, example): WINDOW + 4 for example in examples}
        found = decode(model, wanted, 4)
        for example in examples:
            assert found[Opening.of_example(model, example)] == one_by_one(model, example, WINDOW + 4)


@pytest.mark.parametrize("architecture", MODELS)
def test_a_prompt_alone_opens_as_with_its_answer(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    for item in edit_tuples(architecture, 28):
        example = model.encode_one(item.edit)
        if not example.remark:
            assert Opening.of_prompt(model, item.edit.prompt) == Opening.of_example(model, example)


def test_a_model_without_a_cache_reads_everything_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    wanted = {Opening.of_example(model, example): 5 for example in encoded_group(model, 8).edit}
    expected = decode(model, wanted, 4)
    monkeypatch.setattr(type(model), "cache_name", "no_such_cache")
    assert decode(model, wanted, 4) == expected


def test_decoding_never_reads_beyond_the_models_limit() -> None:
    model = tiny_model("gpt2")
    assert model.limit
    opening = Opening(tuple(model.ordinary_tokens[0] for _ in range(model.limit.tokens - 1)))
    assert opening.room(model) == 2
    assert len(decode(model, {opening: opening.room(model)}, 1)[opening]) == 2
    assert Opening((*opening.prefix, 1, 1, 1)).room(model) == 1


@pytest.mark.parametrize("architecture", MODELS)
def test_own_prefix_is_all_right_exactly_where_teacher_forcing_is(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    tuples = edit_tuples(architecture, 28)
    # Half of the answers are what the model says by itself; of some of these, the last token is another.
    examples = encoded_group(model, 28).map(list)
    for kind in examples:
        for i in range(0, 28, 2):
            tokens = one_by_one(model, kind[i], len(kind[i].targets))
            if i % 3 == 0:
                tokens[-1] = (tokens[-1] + 1) % model.vocabulary.outputs
            first = kind[i].answer_positions[0] + 1
            if model.two_stacks:
                kind[i] = replace(
                    kind[i],
                    targets=tuple(tokens),
                    decoder_tokens=(*kind[i].decoder_tokens[:first], *tokens[:-1]),
                )
            else:
                kind[i] = replace(kind[i], targets=tuple(tokens), tokens=(*kind[i].tokens[:first], *tokens[:-1]))
    pairs = Triple([t.edit for t in tuples], [t.edit for t in tuples], [t.unrelated for t in tuples])
    for kind, decoded in zip(examples, decode_answers(model, pairs, examples, 6), strict=True):
        forced = score(model, kind, 6).whole
        assert 5 < forced.sum() < 23
        assert torch.equal(decoded.own_correct == 1, forced == 1)
        assert [decoded.own[i] == list(example.targets) for i, example in enumerate(kind)] == forced.bool().tolist()


def test_free_answers_end_with_the_sequence_or_the_line_or_the_limit() -> None:
    model = tiny_model("gpt2")
    model.module.generation_config.eos_token_id = None
    pair = PromptAnswer("Where did Cleo write a song?", "Cor")
    example = model.encode_one(pair)
    tokens = one_by_one(model, example, len(example.targets) + MORE)

    def said() -> str:
        pairs, examples = Triple([pair], [pair], [pair]), Triple([example], [example], [example])
        return decode_answers(model, pairs, examples, 1).edit.free[0]

    assert said() == text_of(model, tokens)
    end = next(i for i in range(1, len(tokens)) if tokens[i] not in tokens[:i] and text_of(model, tokens[:i]))
    model.module.generation_config.eos_token_id = [tokens[end], 10**6]
    assert said() == text_of(model, tokens[:end])


def test_decoding_refuses_what_is_not_a_number() -> None:
    model = tiny_model("gpt2")
    measures = StrictMeasures(model, edit_tuples("gpt2", 3), 2, 0)
    module: Any = ffn_layers(model)[0].module
    module.weight.data.fill_(math.nan)
    with pytest.raises(DivergedError):
        measures.of(3)


# Exact match.


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("The  Isle of Bel.", "isle of bel"),
        ("an apple, a pear", "apple pear"),
        ("U.S.A.", "usa"),
        ("Another theatre", "another theatre"),
        ("The", "the"),
        (" ? ", "?"),
        ("Ål", "ål"),
        ("", ""),
    ],
)
def test_answers_are_normalised_as_in_squad(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


def test_an_exact_match_has_nothing_more_and_nothing_less() -> None:
    assert exact_match("the Beatles!", "Beatles")
    assert not exact_match("the Beatles of Liverpool", "Beatles")
    assert not exact_match("", "The")
    assert not exact_match("?", "!")


# CounterFact's two definitions.


@pytest.mark.parametrize("architecture", MODELS)
def test_two_answers_are_compared_token_by_token_and_by_their_means(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    tuples = with_truth(edit_tuples(architecture, 20))
    tuples[3] = replace(tuples[3], truth=None)
    measures = StrictMeasures(model, tuples, 6, 0, n_decoded=0)
    before = measures.of(20)
    disturb(model)
    found = measures.of(12)
    known = [i for i in range(12) if i != 3]
    equivalent = draw_equivalent(tuples, random.Random(0))
    for kind in ("ES", "GS", "LS"):
        larger, likelier = [], []
        for i in known:
            item = tuples[i]
            prompt = {"ES": item.edit, "GS": equivalent[i], "LS": item.unrelated}[kind].prompt
            assert item.truth
            wanted, other = (
                (item.unrelated.answer, item.edit.answer) if kind == "LS" else (item.edit.answer, item.truth)
            )
            encoded = [model.encode_one(PromptAnswer(prompt, answer)) for answer in (wanted, other)]
            mine, theirs = encoded[0].targets, encoded[1].targets
            logits = [next_logits(model, encoded[0], mine[:j]) for j in range(len(mine))]
            wins = [bool(row[a] > row[b]) for row, a, b in zip(logits, mine, theirs, strict=False)]
            larger.append(sum(wins) / len(mine))
            means = [
                -sum(
                    next_logits(model, example, example.targets[:j]).log_softmax(-1)[token].item()
                    for j, token in enumerate(example.targets)
                )
                / len(example.targets)
                for example in encoded
            ]
            likelier.append(float(means[0] < means[1]))
        assert found[f"larger_logit_{kind}"] == pytest.approx(sum(larger) / len(known), abs=1e-12)
        assert found[f"likelier_{kind}"] == pytest.approx(sum(likelier) / len(known), abs=1e-12)
    assert found != before
    assert set(found) == {f"{pre}{name}" for pre in ("", "pre_") for name in TWO_ANSWERS}


def test_answers_that_begin_alike_and_the_longer_ones_rest_are_no_successes() -> None:
    model = tiny_model("gpt2")
    same = replace(edit_tuples("gpt2", 1)[0], truth="Avaria")
    assert same.edit.answer == "Avaria"
    found = StrictMeasures(model, [same], 1, 0, n_decoded=0).of(1)
    assert found["larger_logit_ES"] == found["likelier_ES"] == 0


# Perplexity.


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_perplexity_is_that_of_a_loop_over_all_tokens(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    examples = text_examples(model, " ".join(f"{item.edit.prompt} It is so." for item in edit_tuples("gpt2", 9)))
    losses = [
        -next_logits(model, replace(example, answer_positions=(position,)), ()).log_softmax(-1)[target].item()
        for example in examples
        for position, target in zip(example.answer_positions, example.targets, strict=True)
    ]
    assert len(losses) > len(examples) > 1
    assert perplexity(model, examples) == pytest.approx(math.exp(sum(losses) / len(losses)))
    measures = StrictMeasures(model, edit_tuples(architecture, 2), 2, 0, examples, n_decoded=0)
    assert measures.of(2) == {name: perplexity(model, examples) for name in ("perplexity", "pre_perplexity")}


def test_a_perplexity_stays_finite() -> None:
    model = tiny_model("gpt2")
    model.module.get_output_embeddings().weight.data *= 1e6
    assert perplexity(model, text_examples(model, "Ada Lund wrote a song in Cor.")) == LARGEST


# All of them.


@pytest.mark.parametrize("architecture", MODELS)
def test_an_unedited_model_agrees_with_itself_and_an_edited_one_with_a_new_measurement(
    architecture: Architecture,
) -> None:
    model = tiny_model(architecture)
    tuples, text = with_truth(edit_tuples(architecture, 12)), text_examples(model, "Ada Lund wrote. Cleo wrote it.")
    measures = StrictMeasures(model, tuples, 5, 3, text, n_decoded=8)
    found = measures.of(12)
    names = {*DECODED, *TWO_ANSWERS, "perplexity"}
    assert set(found) == {*names, *(f"pre_{name}" for name in names), "own_agreement", "free_agreement"}
    assert {name.removeprefix("pre_") for name in found} < set(MEASURES)
    assert all(found[name] == found[f"pre_{name}"] for name in names)
    assert found["own_agreement"] == found["free_agreement"] == 1
    unedited = measures.of(5)
    disturb(model, 2.0)
    edited, anew = measures.of(5), StrictMeasures(model, tuples, 5, 3, text, n_decoded=8).of(5)
    assert {name: edited[name] for name in names} == {name: anew[name] for name in names}
    assert {edited[f"pre_{name}"] == unedited[name] for name in names} == {True}
    assert edited["own_agreement"] < 1 and edited["free_agreement"] < 1


def test_prompts_are_those_of_an_evaluation_with_the_same_seed() -> None:
    model = tiny_model("gpt2")
    measures = StrictMeasures(model, edit_tuples("gpt2", 9), 4, 0, n_decoded=0)
    assert measures.examples == encoded_group(model, 9)


def test_a_fact_checker_has_none_of_them() -> None:
    model = tiny_model("bert")
    assert architecture_of(model) == "bert"
    assert StrictMeasures(model, edit_tuples("bert", 4), 2, 0).of(4) == {}
    assert text_examples(model, "Ada Lund wrote a song.") == []


@pytest.mark.parametrize("n", [0, 4])
def test_only_tuples_that_are_there_are_measured(n: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 3"):
        StrictMeasures(tiny_model("gpt2"), edit_tuples("gpt2", 3), 2, 0, n_decoded=0).of(n)
