"""The rules by which claims are rephrased."""

import pytest

from malmen.data.paraphrase import FRAMES, front_date, lower_first, paraphrase
from malmen.data.parsing import key

CLAIM = "The capital of France was moved in 1940."


def test_rephrasings_differ_from_the_claim_and_from_each_other() -> None:
    found = paraphrase(CLAIM, len(FRAMES), seed=0)
    assert len({key(text) for text in (*found, CLAIM)}) == len(FRAMES) + 1
    assert all(text.endswith(".") and not text.endswith("..") for text in found)


def test_the_choice_depends_on_seed_and_claim_only() -> None:
    assert paraphrase(CLAIM, 3, seed=0) == paraphrase(CLAIM, 3, seed=0)
    assert len({paraphrase(CLAIM, 3, seed=seed) for seed in range(10)}) > 1


def test_a_known_choice_stays_the_same_on_every_platform() -> None:
    assert paraphrase("Ice-T had a debut album.", 2, seed=7) == (
        "Ice-T had a debut album, sources say.",
        "According to the record, Ice-T had a debut album.",
    )


def test_a_claim_that_is_itself_framed_is_not_returned() -> None:
    claim = "it is true that Soyuz flew"
    assert "It is true that Soyuz flew." not in paraphrase(claim, len(FRAMES) - 1, seed=0)
    framed = paraphrase("Soyuz flew", len(FRAMES), seed=0)
    assert "It is true that Soyuz flew." in framed


@pytest.mark.parametrize("count", [0, len(FRAMES) + 1])
def test_more_rephrasings_than_frames_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="count must lie between 1 and"):
        paraphrase(CLAIM, count, seed=0)


@pytest.mark.parametrize(
    "sentence, inside",
    [
        ("The capital moved", "the capital moved"),
        ("There are many airports", "there are many airports"),
        ("In 2011 he left", "in 2011 he left"),
        ("The Last Song is a film", "The Last Song is a film"),
        ("A Perfect Circle is a band", "A Perfect Circle is a band"),
        ("John is a poet", "John is a poet"),
        ("CHiPs is a film", "CHiPs is a film"),
        ("Therefore it rains", "Therefore it rains"),
    ],
)
def test_only_function_words_that_begin_no_name_are_lowered(sentence: str, inside: str) -> None:
    assert lower_first(sentence) == inside


@pytest.mark.parametrize(
    "body, fronted",
    [
        ("Anne Rice was born in 1997", "In 1997, Anne Rice was born"),
        ("The series finale ended in June 2013", "In June 2013, the series finale ended"),
        ("Babur died on December 26, 1730", "On December 26, 1730, Babur died"),
        ("St. Anger was released on June 3rd, 2003", "On June 3rd, 2003, St. Anger was released"),
    ],
)
def test_a_final_date_moves_to_the_front(body: str, fronted: str) -> None:
    assert front_date(body) == [fronted]


@pytest.mark.parametrize(
    "body",
    [
        "Physics includes equations",
        "Scandal is fronted by someone born on June 26, 1957",  # the date belongs to another verb
        "It stars an actress who was born in 1981",
        "Stomp the Yard had an actress born in 1981",
        "The show had nine seasons starting in 1972",
        "In Chicago she won in 1990",
        "He was in town between 1990 and in 1992",
        "The film was released only in 2011",
        "The first title he won was in 2012",
        "The population was 506,615 in 2014",
        "The song In the End",
    ],
)
def test_a_date_that_is_not_safe_to_move_stays(body: str) -> None:
    assert front_date(body) == []


def test_an_abbreviation_keeps_its_full_stop() -> None:
    found = paraphrase("The team is Juventus F.C.", len(FRAMES), seed=0)
    assert "It is true that the team is Juventus F.C." in found
    assert "The team is Juventus F.C., sources say." in found
