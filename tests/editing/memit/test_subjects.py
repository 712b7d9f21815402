"""Where subjects stand, in characters and in tokens."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tiny_models import NAMES, edit_tuple

from malmen.data.matching import find
from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.editing.memit.requests import make_request
from malmen.editing.memit.subjects import count_found, last_token_before, locate_subject
from malmen.editing.training import encode_edits
from malmen.errors import UserError
from malmen.models.encoding import encode_text
from malmen.models.language_model import LanguageModel
from malmen.models.length import Limit


def item(prompt: str, subject: str | None, *equivalent: str) -> EditTuple:
    return EditTuple("1", PromptAnswer(prompt, "Cor"), equivalent or ("x",), PromptAnswer("a", "b"), subject)


@pytest.mark.parametrize(
    "text, part, found",
    [
        ("Where is Ada Lund?", "Ada Lund", "Ada Lund"),
        ("Ada Lund is where?", "Ada Lund", "Ada Lund"),
        ("Did Annika meet Ann?", "Ann", "Ann?"),  # a whole word, though another word begins so
        ("Did Annika sing?", "Ann", "Annika"),
        ("where is ada lund?", "Ada Lund", "ada lund"),
        ("Is ann or Ann here?", "Ann", "Ann here"),  # the same case first
        ("Where is Łódź (Poland)?", "Łódź (Poland)", "Łódź (Poland)"),
        ("Who made C++?", "C++", "C++"),
        ("Where is Ada?", " Ada ", "Ada"),
        ("Where is she?", "Ada", None),
    ],
)
def test_a_text_is_found_as_a_whole_word_and_in_its_case_if_it_can_be(text: str, part: str, found: str | None) -> None:
    span = find(part, text)
    assert (span is None) == (found is None)
    if span and found:
        assert span[0] == text.index(found) and span[1] - span[0] == len(part.strip())


def test_a_subject_is_the_stated_one_else_a_guess_else_the_prompts_end() -> None:
    prompt = "Where is Ada?"
    spans = [
        locate_subject(item(prompt, "Ada", "Is Ada where?")),
        locate_subject(item(prompt, None, "Say: Ada came to")),
        locate_subject(item(prompt, "Bram", "Say: Ada came to")),
        locate_subject(item(prompt.lower(), None, "say: ada came to")),
        locate_subject(item(prompt.lower(), None, "say it!")),
    ]
    assert [prompt[span.start : span.end] for span in spans] == ["Ada", "Ada", "Ada", "Ada", "?"]
    assert [span.found for span in spans] == ["stated", "name", "name", "overlap", "nowhere"]
    assert [span.certain for span in spans] == [True, True, True, False, False]
    assert count_found(spans) == {"stated": 1, "name": 2, "overlap": 1, "nowhere": 1}


@pytest.mark.parametrize(
    "text, subject",
    [
        ("Where did Dov van der Meer write a song?", "Dov van der Meer"),  # several tokens
        ("Ada Lund wrote what?", "Ada Lund"),  # at the start, where the BPE has no space
        ("In Cor: Ada Lund", "Ada Lund"),  # at the end
        ("Where is the Größe 日本 of Cor?", "Größe 日本"),  # letters of several tokens each
        ("Is 🎵Ada here?", "🎵"),
    ],
)
def test_the_last_token_is_the_one_behind_which_the_subject_is_complete(
    gpt2: LanguageModel, text: str, subject: str
) -> None:
    end = text.index(subject) + len(subject)
    encoded = encode_text(gpt2.tokenizer, text, with_spans=True)
    tokens, position = list(encoded.tokens), last_token_before(encoded, end)
    assert tokens == gpt2.tokenizer(text)["input_ids"]
    decoded = [str(gpt2.tokenizer.decode(tokens[:length])) for length in range(len(tokens) + 1)]
    complete = [length for length, part in enumerate(decoded) if part.startswith(text[:end])]
    assert position == min(complete) - 1


def test_a_tokenizer_without_offsets_is_refused(gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(gpt2.tokenizer), "is_fast", False)
    with pytest.raises(UserError, match="fast tokenizer"):
        last_token_before(encode_text(gpt2.tokenizer, "Ada", with_spans=True), 3)


def test_a_request_holds_the_prompt_alone_and_behind_each_prefix(gpt2: LanguageModel) -> None:
    source = replace(edit_tuple("gpt2", 3), subject=NAMES[3])
    (edit,) = encode_edits(gpt2, [source])
    request = make_request(gpt2, edit, ["The song", "A"])

    def decode(tokens: Sequence[int]) -> str:
        return str(gpt2.tokenizer.decode(list(tokens)))

    answer = " " + source.edit.answer
    for passage, before in zip(request.contexts, ["", "The song. ", "A. "], strict=True):
        example = passage.example
        assert decode((*example.tokens, example.targets[-1])) == before + source.edit.prompt + answer
        assert decode(example.tokens[: passage.position + 1]).endswith(NAMES[3])
        assert decode(example.targets) == answer
        assert example.weight == pytest.approx(1 / (3 * len(example.targets)))
    bare = request.contexts[0].example
    assert (bare.tokens, bare.answer_positions, bare.targets) == (edit.tokens, edit.answer_positions, edit.targets)
    assert request.essence is not None
    assert decode(request.essence.example.tokens) == f"{NAMES[3]} is a"
    assert decode(request.essence.example.tokens[: request.essence.position + 1]) == NAMES[3]


def test_what_is_too_long_loses_the_beginning_of_its_prefix(gpt2: LanguageModel) -> None:
    (edit,) = encode_edits(gpt2, [replace(edit_tuple("gpt2", 3), subject=NAMES[3])])
    whole = make_request(gpt2, edit, ["The song of Cor " * 3]).contexts[1]
    gpt2.limit = Limit(len(whole.example.tokens) - 5, "its configuration")
    cut = make_request(gpt2, edit, ["The song of Cor " * 3]).contexts[1]
    assert cut.example.tokens == whole.example.tokens[5:]
    assert cut.position == whole.position - 5
    assert cut.example.answer_positions == tuple(position - 5 for position in whole.example.answer_positions)


def test_an_edit_without_a_subject_is_made_at_its_prompts_end(gpt2: LanguageModel) -> None:
    source = edit_tuple("gpt2", 0)
    prompt = replace(source.edit, prompt=source.edit.prompt.lower())
    (edit,) = encode_edits(gpt2, [replace(source, edit=prompt, equivalent=("Ho!",))])
    request = make_request(gpt2, edit, ["The"])
    assert request.essence is None and request.subject.found == "nowhere"
    assert [passage.position for passage in request.contexts] == [
        passage.example.answer_positions[0] for passage in request.contexts
    ]


def test_an_edit_whose_text_is_not_known_is_refused(gpt2: LanguageModel) -> None:
    (edit,) = gpt2.encode([edit_tuple("gpt2", 0).edit])
    with pytest.raises(ValueError, match="encode_edits"):
        make_request(gpt2, edit, [])
