"""The verdict on an edited model: each bound, the wording, and what it rests on."""

from dataclasses import replace
from typing import Any

import pytest

from malmen.own_facts.fluency import ngram_entropy
from malmen.own_facts.health import Health, Level, beyond_training, judge

GOOD = Health(
    freely=True,
    facts_asked=100,
    facts_right=94,
    facts_right_before=1,
    unrelated_asked=100,
    unrelated_changed=3,
    perplexity=21.3,
    perplexity_before=20.9,
    text=None,
    text_sha256="",
    vocabulary=50257,
    entropy=5.0,
    entropy_before=5.0,
    generations=[],
)


def test_a_good_model_is_fine_in_words() -> None:
    verdict = judge(GOOD)
    assert verdict.level == "fine" and verdict.advice == []
    assert verdict.sentence == (
        "94 of 100 facts answered when asked freely; 3 of 100 unrelated answers changed; perplexity on ordinary text "
        "21.3, was 20.9: fine to use."
    )


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"facts_right": 90}, "fine"),
        ({"facts_right": 89}, "look"),
        ({"facts_right": 50}, "look"),
        ({"facts_right": 49}, "refuse"),
        ({"unrelated_changed": 10}, "fine"),
        ({"unrelated_changed": 11}, "look"),
        ({"unrelated_changed": 40}, "look"),
        ({"unrelated_changed": 41}, "refuse"),
        ({"perplexity": 22.0, "perplexity_before": 20.0}, "fine"),
        ({"perplexity": 22.1, "perplexity_before": 20.0}, "look"),
        ({"perplexity": 30.0, "perplexity_before": 20.0}, "look"),
        ({"perplexity": 30.1, "perplexity_before": 20.0}, "refuse"),
        ({"entropy": 4.0}, "fine"),
        ({"entropy": 3.9}, "look"),
        ({"entropy": 2.5}, "look"),
        ({"entropy": 2.4}, "refuse"),
        ({"entropy": 0.0, "entropy_before": 0.0}, "fine"),
        ({"perplexity": None, "perplexity_before": None, "entropy": None, "entropy_before": None}, "fine"),
    ],
)
def test_each_bound(changes: dict[str, Any], level: Level) -> None:
    verdict = judge(replace(GOOD, **changes))
    assert verdict.level == level
    assert len(verdict.advice) == (level != "fine")


def test_an_undertrained_editor_gets_do_not_use_and_the_reason_comes_first() -> None:
    """Answers such as "Schwabenen Schwabenen Schwabenen" for most unrelated questions, under an ES of 64 %."""
    verdict = judge(replace(GOOD, facts_right=64, unrelated_changed=85, entropy=1.2))
    assert verdict.sentence.startswith("85 of 100 unrelated answers changed; n-gram entropy")
    assert verdict.sentence.endswith(
        "64 of 100 facts answered when asked freely; perplexity on ordinary text 21.3, was 20.9: do not use this model."
    )
    assert len(verdict.advice) == 3 and verdict.sentence in str(verdict) and verdict.advice[0] in str(verdict)


UNKNOWN = replace(GOOD, facts_right_before=None, unrelated_changed=None, perplexity_before=None, entropy_before=None)


def test_without_the_model_before_nothing_is_called_fine() -> None:
    verdict = judge(UNKNOWN)
    assert verdict.level == "look" and "--before" in str(verdict)
    assert verdict.sentence == (
        "94 of 100 facts answered when asked freely; perplexity on ordinary text 21.3: look before you use it."
    )
    assert judge(replace(UNKNOWN, perplexity=50257.0)).level == "look"
    assert judge(replace(UNKNOWN, perplexity=50258.0)).level == "refuse"
    assert judge(replace(UNKNOWN, facts_right=49)).level == "refuse"


def test_what_to_expect_of_too_many_facts() -> None:
    sentence = beyond_training(200, 64)
    assert "train an editor for 200 edits or more" in sentence and "rounds of at most 64 (--rounds)" in sentence


def test_entropy_is_that_of_rome() -> None:
    assert ngram_entropy("aaaaaa") == 0 and ngram_entropy("") == ngram_entropy("a") == 0
    # Bigrams ab, ba, ab, ba: 1 bit; trigrams aba, bab, aba: 0.9183 bits.
    assert ngram_entropy("ababa") == pytest.approx((2 / 3 * 1 + 4 / 3 * 0.9182958) / 2)
    # Five different bigrams and four different trigrams.
    assert ngram_entropy("abcdef") == pytest.approx((2 / 3 * 2.3219281 + 4 / 3 * 2) / 2)
