"""What is edited is what a user sees: any tokenizer, asked by plain transformers and by text alone."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizer_kinds import CHINESE, EVERYTHING, FACTS, KINDS, byte_level, llama, prepending, save, small, unigram
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from malmen.api import edit, load_model
from malmen.editing.memit.covariance import encode_texts
from malmen.editing.memit.prefixes import sample_prefixes
from malmen.editing.memit.requests import make_request
from malmen.editing.training import encode_edits
from malmen.errors import UserError
from malmen.models.encoding import encode_pair, encode_text
from malmen.models.language_model import LanguageModel
from malmen.models.length import Limit
from malmen.models.tasks import TASKS
from malmen.models.vocabulary import Vocabulary
from malmen.own_facts.edited import EditedModel
from malmen.own_facts.facts import Fact, read_facts
from malmen.own_facts.methods import FineTuning

TUNING = FineTuning(EVERYTHING, 14, epochs=50, learning_rate=1e-2)
OTHERS = [Fact("Who is it?", "Mira")]


def edited(folder: Path, facts: Sequence[Fact], method: FineTuning = TUNING) -> EditedModel:
    """Fine-tune facts into the model in a folder; save it in ``edited``."""
    result = edit(load_model(folder), facts, method, OTHERS)
    result.save(folder / "edited")
    return result


def language_model(tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    """Return a tiny model for a tokenizer, with random weights."""
    return LanguageModel(AutoModelForCausalLM.from_config(llama(tokenizer)), tokenizer, TASKS["question_answering"])


def configured(kind: str, **settings: Any) -> PretrainedConfig:
    """Return a configuration of a kind of model."""
    return AutoConfig.for_model(kind, **settings)


def said(folder: Path, fact: Fact) -> str:
    """Ask the model in a folder by transformers alone, without the special tokens that would close the prompt."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer(fact.prompt)["input_ids"]
    while prompt[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        prompt.pop()
    ids = torch.tensor([prompt])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
    return plain(tokenizer, tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True))


def plain(tokenizer: Any, text: str) -> str:
    """Return a text as its tokenizer gives it back, without spaces."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return "".join(tokenizer.decode(ids, skip_special_tokens=True).split())


# Rows 1 and 2, and other tokenizers of the same kinds.


@pytest.mark.parametrize("kind", KINDS)
def test_an_edited_model_gives_its_answers_by_text_alone(tmp_path: Path, kind: str) -> None:
    make, facts = KINDS[kind]
    tokenizer = make()
    folder = save(tmp_path / "model", llama(tokenizer), tokenizer)
    result = edited(folder, facts)
    assert result.scores["ES"] == 1
    for fact in facts:
        assert said(folder / "edited", fact).startswith(plain(tokenizer, fact.answer))
    by_text = result.report.by_text
    assert by_text and (by_text.right, by_text.asked, by_text.seed) == (len(facts), len(facts), 0)
    assert result.scores["by_text"] == by_text.share == 1


def test_a_space_that_is_prepended_is_no_part_of_an_answer_whichever_class_reads_it(tmp_path: Path) -> None:
    tokenizer = prepending()
    folder = save(tmp_path / "model", llama(tokenizer), tokenizer)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "LlamaTokenizer"}))
    assert type(AutoTokenizer.from_pretrained(folder)).__name__.startswith("Llama")
    edited(folder, FACTS)
    assert said(folder / "edited", FACTS[0]).startswith("AnaBrandt")


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_are_the_whole(kind: str) -> None:
    make, facts = KINDS[kind]
    tokenizer = make()
    for fact in facts:
        pair = encode_pair(tokenizer, fact.prompt, fact.answer)
        alone, whole = (encode_text(tokenizer, text) for text in (fact.prompt, f"{fact.prompt} {fact.answer}"))
        assert pair.is_apart and pair.text.tokens == whole.tokens
        assert pair.text.tokens == (*alone.tokens, *pair.answer)
        closing = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
        assert not closing & set(pair.text.tokens)


def test_special_tokens_that_a_text_begins_or_ends_with_are_not_added_again() -> None:
    tokenizer = byte_level("<s> $A </s>")
    plainly, templated = (encode_text(tokenizer, text, closed=True) for text in ("Who?", "<s>Who?</s>"))
    assert templated.tokens == plainly.tokens == (0, *plainly.own, 1)
    pair = encode_pair(tokenizer, "<s>Who?", "Ana")
    assert pair.text.tokens == encode_text(tokenizer, "Who? Ana").tokens and pair.is_apart


@pytest.mark.parametrize("kind", ["adds both", "prepends a space", "WordPiece"])
def test_the_contexts_of_memit_are_texts_as_a_model_reads_them(kind: str) -> None:
    tokenizer = KINDS[kind][0]()
    model = language_model(tokenizer)
    facts = [
        replace(fact, subject=subject) for fact, subject in zip(FACTS[:2], ("Lost Harbour", "Otto Lind"), strict=True)
    ]
    edits = encode_edits(model, [fact.edit_tuple(FACTS[3].pair) for fact in facts])
    for fact, edit_ in zip(facts, edits, strict=True):
        request = make_request(model, edit_, ["Where", "The club"])
        assert request.essence and request.contexts[0].example.tokens == edit_.tokens
        for passage, before in zip(request.contexts, ("", "Where. ", "The club. "), strict=True):
            example = passage.example
            whole = encode_text(tokenizer, f"{before}{fact.prompt} {fact.answer}")
            assert (*example.tokens, example.targets[-1]) == whole.tokens
            short, until = (tokenizer.decode(list(example.tokens[: passage.position + n])) for n in (0, 1))
            assert str(fact.subject) in until and str(fact.subject) not in short
        assert request.essence.example.tokens == encode_text(tokenizer, f"{fact.subject} is a").tokens


@pytest.mark.parametrize("kind", ["adds both", "WordPiece"])
def test_texts_begin_as_a_model_reads_them_and_never_end(kind: str) -> None:
    tokenizer: Any = KINDS[kind][0]()
    model = language_model(tokenizer)
    begin, end = tokenizer("Who?")["input_ids"][0], tokenizer("Who?")["input_ids"][-1]
    model.limit = Limit(7, "its configuration")
    pieces = [text.tokens for text in encode_texts(model, [f"{fact.prompt} {fact.answer}" for fact in FACTS], 60)]
    assert max(map(len, pieces)) == 7 and {piece[0] for piece in pieces} == {begin}
    assert end not in {token for piece in pieces for token in piece}
    assert sum(map(len, pieces)) <= 60
    (prefix,) = sample_prefixes(model, ["Where"], 6, 5, seed=0)
    assert prefix.startswith("Where") and end not in tokenizer(prefix, add_special_tokens=False)["input_ids"]


# A token across the border belongs to the answer, and is warned of.


def across_the_border() -> tuple[PreTrainedTokenizerBase, list[Fact]]:
    """Return a tokenizer with a token for the end of a prompt and the beginning of its answer, and facts for it."""
    facts = [Fact("Is Ana it?", "Ana Brandt"), Fact("Is Ana it now?", "Ana Brandt"), FACTS[1]]
    return byte_level("<s> $A", [*facts[:2]] * 9, across_words=True), facts


def test_a_token_across_the_border_belongs_to_the_answer_and_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer, facts = across_the_border()
    pair = encode_pair(tokenizer, facts[0].prompt, facts[0].answer)
    assert pair.text.spans and not pair.is_apart
    start, end = pair.text.spans[pair.n_prompt]
    assert start < len(facts[0].prompt) < end
    assert all(stop <= len(facts[0].prompt) for _, stop in pair.text.spans[: pair.n_prompt])

    folder = save(tmp_path / "model", llama(tokenizer), tokenizer)
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f.prompt, "answer": f.answer}) + "\n" for f in facts))
    edited(folder, read_facts(path), FineTuning(last_blocks=1, epochs=1))
    (warning,) = [line for line in caplog.messages if "other tokens than alone" in line]
    assert "2 of 3 facts" in warning and "line 1, line 2" in warning and "line 3" not in warning


def test_without_spans_the_answer_begins_where_the_tokens_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, (fact, *_) = across_the_border()
    alone = encode_text(tokenizer, fact.prompt).tokens
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    pair = encode_pair(tokenizer, fact.prompt, fact.answer)
    assert not pair.is_apart and pair.text.spans is None
    assert pair.text.tokens[: pair.n_prompt] == alone[: pair.n_prompt]
    assert pair.text.tokens[pair.n_prompt] != alone[pair.n_prompt]


# Row 3: a model that sees later tokens.


@pytest.mark.parametrize("kind", ["roberta", "bert", "xlnet"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_that_sees_later_tokens_is_refused(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    tokenizer = byte_level()
    sizes = small(tokenizer)
    config = {
        "roberta": lambda: configured("roberta", **sizes, max_position_embeddings=130),
        "bert": lambda: configured("bert", **sizes),
        "xlnet": lambda: configured("xlnet", vocab_size=len(tokenizer), d_model=32, n_layer=2, n_head=4, d_inner=64),
    }[kind]()
    folder = save(tmp_path / "model", config, tokenizer)
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    module.save_pretrained(folder)
    # In transformers, XLNet itself cannot run in bfloat16.
    reason = "fails on a text" if (kind, dtype) == ("xlnet", torch.bfloat16) else "decoder-only"
    with pytest.raises(UserError, match=f"'{kind}'.*{reason}"):
        load_model(folder, task="question_answering")


def test_an_encoder_that_is_set_up_as_a_decoder_is_taken(tmp_path: Path) -> None:
    tokenizer = byte_level()
    config = configured("roberta", **small(tokenizer, max_position_embeddings=130, is_decoder=True))
    model = load_model(save(tmp_path / "model", config, tokenizer))
    # Its positions begin after that of padding, which has id 2 here.
    assert model.language_model.limit and model.language_model.limit.tokens == 127


# Row 11: tokens without a row.


def test_tokens_without_a_row_are_named_with_all_their_facts(tmp_path: Path) -> None:
    tokenizer = byte_level()
    config = llama(tokenizer)
    tokenizer.add_tokens(["<ent>"])
    folder = save(tmp_path / "model", config, tokenizer)
    lines = [{"prompt": f"Who directed {'<ent> ' * (n % 2)}film {n}?", "answer": "Ana"} for n in range(30)]
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError) as caught:
        edited(folder, read_facts(path))
    first, *shown = str(caught.value).splitlines()
    assert "15 problems" in first and f"{path}, line 2: " in shown[0] and "'<ent>'" in shown[0]
    assert f"{len(tokenizer) - 1} rows" in shown[0] and "embedding" in shown[0]


@pytest.mark.parametrize("part, rows", [("embedding", (9, 10, 10)), ("decoder", (10, 9, 10)), ("head", (10, 10, 9))])
def test_a_token_without_a_row_is_named_with_the_part_that_lacks_it(part: str, rows: tuple[int, int, int]) -> None:
    tokenizer = byte_level()
    token = re.escape(repr(tokenizer.convert_ids_to_tokens(9)))
    with pytest.raises(UserError, match=rf"'Who\?'.*{token}.*{part}.* 9 rows"):
        Vocabulary(*rows).check("Who?", tokenizer, [9], [9], [9])


def test_a_padding_token_without_a_row_does_no_harm(tmp_path: Path) -> None:
    tokenizer = byte_level()
    config = llama(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    folder = save(tmp_path / "model", config, tokenizer)
    assert edited(folder, FACTS).scores["by_text"] == 1


# Row 16: how much a model reads.

LONG = Fact("In the year of the flood " * 40 + "who was king?", "Ana")


@pytest.mark.parametrize("kind", ["bloom", "t5"])
def test_a_model_without_a_limit_reads_facts_of_any_length(tmp_path: Path, kind: str) -> None:
    tokenizer = byte_level() if kind == "bloom" else unigram("always")
    size = len(tokenizer)
    config = {
        "bloom": lambda: configured("bloom", vocab_size=size, hidden_size=32, n_layer=2, n_head=4),
        "t5": lambda: configured(
            "t5", vocab_size=size, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
        ),
    }[kind]()
    folder = save(tmp_path / "model", config, tokenizer)
    assert load_model(folder).language_model.limit is None
    result = edited(folder, [LONG], FineTuning(last_blocks=1, epochs=1))
    assert result.report.by_text and result.report.by_text.asked == 1


@pytest.mark.parametrize("kind", ["mpt", "gpt2", "tokenizer", "rwkv"])
def test_a_limit_is_the_models_or_its_tokenizers_own(tmp_path: Path, kind: str) -> None:
    tokenizer = byte_level()
    sizes = {"vocab_size": len(tokenizer)}
    config, expected = {
        "mpt": (configured("mpt", **sizes, d_model=32, n_layers=2, n_heads=4, max_seq_len=90), "90 (max_seq_len"),
        "gpt2": (configured("gpt2", **sizes, n_embd=32, n_layer=2, n_head=4, n_positions=80), "80 (n_positions"),
        "tokenizer": (llama(tokenizer), "70 (model_max_length"),
        "rwkv": (
            configured(
                "rwkv", **sizes, hidden_size=32, attention_hidden_size=32, num_hidden_layers=2, context_length=60
            ),
            "60 (context_length",
        ),
    }[kind]
    if kind == "tokenizer":
        tokenizer.model_max_length = 70
    folder = save(tmp_path / "model", config, tokenizer)
    with pytest.raises(UserError) as caught:
        edit(load_model(folder), [LONG], TUNING, OTHERS)
    assert f"the model reads {expected}" in str(caught.value)


def test_tuples_that_are_too_long_are_named_by_their_ids() -> None:
    model = language_model(byte_level())
    tuples = [replace(fact.edit_tuple(FACTS[3].pair), id=f"zsre-{i}") for i, fact in enumerate([FACTS[0], LONG, LONG])]
    with pytest.raises(UserError) as caught:
        encode_edits(model, tuples)
    first, *shown = str(caught.value).splitlines()
    assert "2 problems" in first and [line.split(":")[0] for line in shown] == ["zsre-1", "zsre-2"]


# Row 22: the package's own questions.


@pytest.mark.parametrize("positions, n_kept", [(20, range(1, 50)), (3, range(0))])
def test_built_in_questions_that_do_not_fit_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, positions: int, n_kept: range
) -> None:
    tokenizer = byte_level()
    config = configured("gpt2", vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=positions)
    model = load_model(save(tmp_path / "model", config, tokenizer))
    facts, method = [Fact("Who?", "Ana")], FineTuning(last_blocks=1, epochs=1)
    if not n_kept:
        with pytest.raises(UserError, match="--unrelated"):
            edit(model, facts, method)
        return
    result = edit(model, facts, method)
    kept = result.report.counts["unrelated"]
    assert kept in n_kept
    assert [line for line in caplog.messages if f"{50 - kept} of the 50" in line and "--unrelated" in line]


# Answers that a tokenizer cannot write, and what generation settings do to answers.


@pytest.mark.parametrize("answer", ["Ω", "Danish Ω", "\u200b"])
def test_an_answer_without_a_token_is_refused(tmp_path: Path, answer: str) -> None:
    make, _ = KINDS["WordPiece"]
    tokenizer = make()
    model = load_model(save(tmp_path / "model", llama(tokenizer), tokenizer))
    with pytest.raises(UserError) as caught:
        edit(model, [Fact("Who is it?", answer)], TUNING, OTHERS)
    assert repr(answer) in str(caught.value) or "no tokens" in str(caught.value)


@pytest.mark.parametrize(
    "kind, prompts", [("WordPiece in lower case", ["Où est Élie ?", "ou est elie ?"]), ("WordPiece", ["Ω?", "Ψ?"])]
)
def test_prompts_that_a_tokenizer_cannot_tell_apart_have_one_answer(
    tmp_path: Path, kind: str, prompts: list[str]
) -> None:
    make, facts = KINDS[kind]
    tokenizer = make()
    model = load_model(save(tmp_path / "model", llama(tokenizer), tokenizer))
    with pytest.raises(UserError, match=rf"{re.escape(prompts[1])}.*same.*{re.escape(prompts[0])}"):
        edit(model, [Fact(prompts[0], facts[0].answer), Fact(prompts[1], facts[1].answer)], TUNING, OTHERS)
    same = [Fact(prompt, facts[0].answer) for prompt in prompts]
    assert edit(model, same, FineTuning(last_blocks=1, epochs=1), OTHERS)


def test_an_answer_of_special_tokens_alone_is_refused(tmp_path: Path) -> None:
    """It would be right whatever the model says, since nobody sees it."""
    tokenizer = byte_level()
    model = load_model(save(tmp_path / "model", llama(tokenizer), tokenizer))
    with pytest.raises(UserError, match="'</s>' has special tokens alone"):
        edit(model, [Fact("Who is it?", "</s>")], TUNING, OTHERS)
    assert edit(model, [Fact("Who is it?", "Ana</s>")], FineTuning(last_blocks=1, epochs=1), OTHERS)


@pytest.mark.parametrize("stated", ["512", 0, -1])
def test_a_limit_that_is_no_number_of_tokens_is_named(tmp_path: Path, stated: object) -> None:
    tokenizer = byte_level()
    folder = save(tmp_path / "model", llama(tokenizer), tokenizer)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": stated}))
    with pytest.raises(UserError, match=f"model_max_length is {stated!r}"):
        load_model(folder)


def test_generation_settings_that_change_answers_show_beside_es(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = byte_level()
    folder = save(tmp_path / "model", llama(tokenizer), tokenizer)
    first = tokenizer(f" {FACTS[2].answer}")["input_ids"][0]
    settings = {"suppress_tokens": [first], "do_sample": True, "temperature": 2.0, "max_length": 4, "num_beams": 2}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    result = edited(folder, FACTS)
    by_text = result.report.by_text
    assert result.scores["ES"] == 1 and by_text
    assert [answer.right for answer in result.report.answers] == [True, True, False, True]
    assert [line for line in caplog.messages if "3 of 4 facts" in line and "100.0 %" in line]
    assert "3 of 4 facts" in (folder / "edited" / "report.md").read_text(encoding="utf-8")
    recorded = json.loads((folder / "edited" / "report.json").read_text(encoding="utf-8"))
    assert recorded["by_text"]["right"] == 3 and recorded["metrics"]["by_text"] == 0.75


def test_a_model_that_cannot_generate_is_edited_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = byte_level()
    model = load_model(save(tmp_path / "model", llama(tokenizer), tokenizer))

    def generate(**_: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(model.module, "generate", generate, raising=False)
    result = edit(model, FACTS, FineTuning(last_blocks=1, epochs=1), OTHERS)
    assert result.report.by_text is None and "by_text" not in result.scores
    assert [line for line in caplog.messages if "no such thing" in line]


def test_a_hundred_of_many_facts_are_asked(tmp_path: Path) -> None:
    tokenizer = byte_level()
    model = load_model(save(tmp_path / "model", llama(tokenizer), tokenizer))
    facts = [Fact(f"Who is {n}?", "Ana") for n in range(105)]
    method = FineTuning(last_blocks=1, epochs=1)
    first, again = (edit(model, facts, method, OTHERS).report for _ in range(2))
    by_text = first.by_text
    assert by_text and by_text.asked == len(set(by_text.facts)) == 100 and by_text == again.by_text
    assert [i for i, answer in enumerate(first.answers) if answer.said is not None] == by_text.facts


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_gives_its_answers_by_text_alone(tmp_path: Path, kind: str) -> None:
    """A decoder is asked as its generation settings begin it: BART's forces the <s> that precedes an answer."""
    tokenizer = unigram("always") if kind == "t5" else byte_level("<s> $A </s>")
    size = {"vocab_size": len(tokenizer), "d_model": 32}
    config = {
        "t5": lambda: configured("t5", **size, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0),
        "bart": lambda: configured(
            "bart",
            **size,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
            decoder_start_token_id=1,
            forced_eos_token_id=1,
        ),
    }[kind]()
    folder = save(tmp_path / "model", config, tokenizer)
    settings = json.loads((folder / "generation_config.json").read_text()) | {"forced_bos_token_id": 0}
    if kind == "bart":
        (folder / "generation_config.json").write_text(json.dumps(settings))
    result = edited(folder, FACTS, FineTuning(EVERYTHING, 14, epochs=60, learning_rate=1e-2))
    assert result.scores["ES"] == result.scores["by_text"] == 1
    module: Any = AutoModelForSeq2SeqLM.from_pretrained(folder / "edited")
    for fact in FACTS:
        ids = torch.tensor([tokenizer(fact.prompt)["input_ids"]])
        output = module.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16)
        assert str(tokenizer.decode(output[0], skip_special_tokens=True)).strip().startswith(fact.answer)


def test_chinese_answers_follow_a_space_only_where_the_tokenizer_keeps_it() -> None:
    kept, dropped = (KINDS[kind][0]() for kind in ("byte-level Chinese", "WordPiece Chinese"))
    fact = CHINESE[1]
    pairs = [encode_pair(tokenizer, fact.prompt, fact.answer) for tokenizer in (kept, dropped)]
    texts = [str(t.decode(list(pair.answer))) for t, pair in zip((kept, dropped), pairs, strict=True)]
    assert texts[0] == f" {fact.answer}" and texts[1].replace(" ", "") == fact.answer
