"""Whether an edited model is still good: what was counted, and a verdict in words.

The verdict has three levels. Each number is compared with two bounds; the worst of them decides:

==============================================  ==========  ====================  =====================
Number                                          fine to use  look before you use   do not use this model
==============================================  ==========  ====================  =====================
share of facts answered when asked freely       >= 90 %     >= 50 %               less
share of unrelated answers that changed         <= 10 %     <= 40 %               more
perplexity on ordinary text, over that before   <= 1.1      <= 1.5                more
n-gram entropy of its own text, over before     >= 0.8      >= 0.5                less
==============================================  ==========  ====================  =====================

The bounds are choices, not theory. An edit that is meant to teach facts fails where half of them are missing. A model
whose perplexity grows by half has lost what a model of several times its size has gained. Without the model before the
edit nothing tells what the edit changed: the verdict is never "fine to use", and "do not use" only where facts are
missing, or the model predicts text worse than by guessing among its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["fine", "look", "refuse"]
LEVELS: dict[Level, str] = {
    "fine": "fine to use",
    "look": "look before you use it",
    "refuse": "do not use this model",
}
"""The levels, from good to bad, and how a verdict says them."""


@dataclass(frozen=True)
class Bounds:
    """Two bounds of a number; a number on a bound is on its good side.

    Attributes:
        fine: up to here the model is fine.
        look: up to here it is worth a look; beyond, it must not be used.
        falling: whether small numbers are bad, and not large ones.
    """

    fine: float
    look: float
    falling: bool = False

    def level(self, number: float) -> Level:
        """Return the level of a number."""
        sign = -1 if self.falling else 1
        if sign * number <= sign * self.fine:
            return "fine"
        return "look" if sign * number <= sign * self.look else "refuse"


FACTS = Bounds(0.9, 0.5, falling=True)
"""Share of facts that the model answers when it is asked freely."""
UNRELATED = Bounds(0.1, 0.4)
"""Share of unrelated answers that changed."""
PERPLEXITY = Bounds(1.1, 1.5)
"""Perplexity on ordinary text, divided by that before the edit."""
ENTROPY = Bounds(0.8, 0.5, falling=True)
"""n-gram entropy of what the model writes by itself, divided by that before the edit."""


@dataclass(frozen=True)
class Generation:
    """What a model writes by itself after a few words; ``before`` is None if it was not asked before the edit."""

    opening: str
    before: str | None
    after: str


@dataclass(frozen=True)
class Health:
    """What was counted of an edited model. What is known only before the edit is None if there was no such model.

    Attributes:
        freely: whether answers are what the model says by itself; else, of a fact checker and of a model that does not
            generate, each token is given the right ones before it.
        facts_asked: number of facts asked.
        facts_right: number answered.
        facts_right_before: number answered before the edit.
        unrelated_asked: number of unrelated prompts asked.
        unrelated_changed: number whose answer changed.
        perplexity: perplexity on ordinary text; None for a fact checker.
        perplexity_before: the same before the edit.
        text: the file of this text; None for the built-in one.
        text_sha256: its digest.
        vocabulary: number of tokens that the model chooses among.
        entropy: n-gram entropy of what it writes by itself, in bits; None if it does not write.
        entropy_before: the same before the edit.
        generations: examples of what it writes.
    """

    freely: bool
    facts_asked: int
    facts_right: int
    facts_right_before: int | None
    unrelated_asked: int
    unrelated_changed: int | None
    perplexity: float | None
    perplexity_before: float | None
    text: str | None
    text_sha256: str
    vocabulary: int
    entropy: float | None
    entropy_before: float | None
    generations: list[Generation]


@dataclass(frozen=True)
class Verdict:
    """Whether to use a model.

    Attributes:
        level: "fine", "look" or "refuse".
        sentence: the numbers and the level in words.
        advice: what to do, a sentence for each number that is not fine.
    """

    level: Level
    sentence: str
    advice: list[str]

    def __str__(self) -> str:
        return "\n".join([self.sentence, *self.advice])


@dataclass(frozen=True)
class Finding:
    """One number in words, with its level, and what to do if it is not fine."""

    level: Level
    words: str
    advice: str = ""


def judge(health: Health) -> Verdict:
    """Return the verdict on a model (see the module's description); what is worst is said first."""
    found = [*facts_found(health), *unrelated_found(health), *perplexity_found(health), *entropy_found(health)]
    order = list(LEVELS)
    found.sort(key=lambda finding: -order.index(finding.level))
    level = worst(found)
    sentence = "; ".join(finding.words for finding in found if finding.words)
    return Verdict(
        level, f"{sentence}: {LEVELS[level]}.", [finding.advice for finding in found if finding.level != "fine"]
    )


def worst(found: Sequence[Finding]) -> Level:
    """Return the worst level of some findings."""
    order = list(LEVELS)
    return max((finding.level for finding in found), key=order.index)


def facts_found(health: Health) -> list[Finding]:
    """Return how many facts are answered."""
    level = FACTS.level(health.facts_right / health.facts_asked)
    how = "answered when asked freely" if health.freely else "answered"
    return [
        Finding(
            level,
            f"{health.facts_right} of {health.facts_asked} facts {how}",
            "The edit did not take for many facts: edit fewer at once, train the editor longer (ft: more --epochs, or "
            "a higher --learning-rate), or use another one.",
        )
    ]


def unrelated_found(health: Health) -> list[Finding]:
    """Return how many unrelated answers changed."""
    if health.unrelated_changed is None:
        return [
            Finding(
                "look",
                "",
                "Nothing tells what the edit changed without the model before it; give that with --before.",
            )
        ]
    level = UNRELATED.level(health.unrelated_changed / health.unrelated_asked)
    return [
        Finding(
            level,
            f"{health.unrelated_changed} of {health.unrelated_asked} unrelated answers changed",
            "The edit reaches what it should not: edit fewer facts at once, or train the editor with more --locality.",
        )
    ]


def perplexity_found(health: Health) -> list[Finding]:
    """Return the perplexity on ordinary text, if it was measured."""
    now, before = health.perplexity, health.perplexity_before
    if now is None:
        return []
    if before is None:
        guessing = now > health.vocabulary
        return [
            Finding(
                "refuse" if guessing else "fine",
                f"perplexity on ordinary text {short(now)}",
                f"The model predicts text worse than by guessing among its {health.vocabulary:,} tokens.",
            )
        ]
    return [
        Finding(
            PERPLEXITY.level(now / before),
            f"perplexity on ordinary text {short(now)}, was {short(before)}",
            "The model reads and writes ordinary text worse than before: edit fewer facts at once, or more gently.",
        )
    ]


def entropy_found(health: Health) -> list[Finding]:
    """Return the entropy of what the model writes, if it fell so far that it is worth a word."""
    now, before = health.entropy, health.entropy_before
    if now is None or not before or (level := ENTROPY.level(now / before)) == "fine":
        return []
    return [
        Finding(
            level,
            f"n-gram entropy of its own text {now:.1f} bits, was {before:.1f}",
            "The model repeats itself; read what it writes.",
        )
    ]


def short(number: float) -> str:
    """Return a perplexity with a few digits."""
    return f"{number:,.1f}" if number < 1e6 else f"{number:.0e}"


def beyond_training(n_facts: int, n_edits: int) -> str:
    """Return what to expect of more facts than an editor was trained for, and what to do."""
    return (
        f"{n_facts} facts at once are more than the {n_edits} that the editor was trained for: expect fewer of them "
        f"answered and more unrelated answers changed; train an editor for {n_facts} edits or more, or edit in rounds "
        f"of at most {n_edits} (--rounds)."
    )
