"""Measurements that check claims about editing in rounds against the numbers of a run.

Each takes the evidence of one model, as those of :mod:`malmen.figures.claims` do. A score is a mean over measures and
seeds, without diverged runs. Scores are compared at the same number of all edits, T m, the largest at which both were
measured: "once", with one round, or "most", in the most rounds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from malmen.figures.evidence import Evidence, Finding, Measurement, percent, verdict

Where = Literal["once", "most"]
Place = tuple[int, int]
"""The number of all edits, and the number of rounds T."""
NO_ROUNDS = "no two kinds of rounds with the same number of edits in all"


@dataclass(frozen=True)
class Pair:
    """The scores of two editors, or of one editor at two places; NaN where all seeds diverged.

    Attributes:
        places: of the first and of the second.
        scores: the same.
    """

    places: tuple[Place, Place]
    scores: tuple[float, float]

    @property
    def lead(self) -> float:
        """How far the first is ahead: infinitely if only the second diverged."""
        ours, theirs = self.scores
        if math.isnan(ours):
            return -math.inf
        return math.inf if math.isnan(theirs) else ours - theirs

    @property
    def ends_diverged(self) -> bool:
        """Whether the second diverged, the first or not."""
        return math.isnan(self.scores[1])


def scores(evidence: Evidence, editor: str, metrics: Sequence[str]) -> dict[Place, float]:
    """Return the mean over measures and seeds by place; NaN where all seeds diverged."""
    rows = evidence.rounds
    rows = rows[(rows["editor"] == evidence.key(editor)) & rows["metric"].isin(metrics)]
    means = rows.groupby(["n_rounds", "n_edits"])["value"].mean()
    found = zip(means.index.to_list(), means.to_list(), strict=True)
    return {(n_rounds * n_edits, n_rounds): mean for (n_rounds, n_edits), mean in found}


def pair(ours: Mapping[Place, float], theirs: Mapping[Place, float], where: str, others_where: str) -> Pair | None:
    """Return two scores at the largest common number of all edits; None if there is none.

    Where both are asked for in the most rounds, it is the largest number of rounds at which both were measured.
    """
    for total in sorted({total for total, _ in ours} & {total for total, _ in theirs}, reverse=True):
        first, second = ({rounds for n, rounds in some if n == total} for some in (ours, theirs))
        if where == others_where:
            first = second = first & second
        places = [_place(some, one) for some, one in ((first, where), (second, others_where))]
        if places[0] and places[1]:
            found = (total, places[0]), (total, places[1])
            return Pair(found, (ours[found[0]], theirs[found[1]]))
    return None


def _place(rounds: set[int], where: str) -> int | None:
    """Return a number of rounds among those measured; None if there is none such."""
    if where == "once":
        return 1 if 1 in rounds else None
    return max(rounds - {1}, default=None)


def fall(evidence: Evidence, editor: str, metrics: Sequence[str]) -> Pair | None:
    """Return an editor's scores at once and in the most rounds."""
    found = scores(evidence, editor, metrics)
    return pair(found, found, "once", "most")


def loses_in_rounds(evidence: Evidence, editor: str, metrics: Sequence[str], at_least: float) -> Finding | None:
    """Check whether an editor loses much from one round to the most rounds, or diverges."""
    found = fall(evidence, editor, metrics)
    if found is None:
        return unpaired(evidence, [editor])
    return Finding(f"{evidence.name(editor)} {from_to(found)}", verdict(found.ends_diverged or found.lead >= at_least))


def keeps_in_rounds(evidence: Evidence, editor: str, metrics: Sequence[str], at_most: float) -> Finding | None:
    """Check whether an editor loses little from one round to the most rounds."""
    found = fall(evidence, editor, metrics)
    if found is None:
        return unpaired(evidence, [editor])
    return Finding(
        f"{evidence.name(editor)} {from_to(found)}", verdict(not found.ends_diverged and found.lead <= at_most)
    )


def loses_less(evidence: Evidence, editor: str, baseline: str, metrics: Sequence[str]) -> Finding | None:
    """Compare the losses of two editors from one round to the largest number of rounds of both."""
    ours, theirs = (scores(evidence, key, metrics) for key in (editor, baseline))
    most = pair(ours, theirs, "most", "most")
    once = most and (most.places[0][0], 1)
    if most is None or once not in ours or once not in theirs:
        return unpaired(evidence, [editor, baseline])
    falls = [
        Pair((once, place), (some[once], score))
        for some, place, score in zip((ours, theirs), most.places, most.scores, strict=True)
    ]
    text = "; ".join(f"{evidence.name(key)} {from_to(one)}" for key, one in zip((editor, baseline), falls, strict=True))
    return Finding(text, verdict(not falls[0].ends_diverged and falls[0].lead < falls[1].lead))


def ahead(
    evidence: Evidence,
    editor: str,
    others: Sequence[str],
    where: Where,
    others_where: Where,
    metrics: Sequence[str],
    at_least: float,
) -> Finding | None:
    """Check whether an editor is ahead of each of the others by some points; by less than 0, it may be behind."""
    ours = scores(evidence, editor, metrics)
    found = {key: pair(ours, scores(evidence, key, metrics), where, others_where) for key in others}
    pairs = {key: one for key, one in found.items() if one}
    if not pairs:
        return unpaired(evidence, [editor, *others])
    text = "; ".join(
        _side_by_side(evidence, editor, {key: one for key, one in pairs.items() if one.places == places})
        for places in dict.fromkeys(one.places for one in pairs.values())
    )
    return Finding(text, verdict(all(one.lead >= at_least for one in pairs.values())))


def _side_by_side(evidence: Evidence, editor: str, pairs: Mapping[str, Pair]) -> str:
    """Describe the scores of an editor and of others at the same places."""
    one = next(iter(pairs.values()))
    reached = {editor: one.scores[0], **{key: other.scores[1] for key, other in pairs.items()}}
    said = ", ".join(f"{evidence.name(key)} {score_text(score)}" for key, score in reached.items())
    return f"{said} ({places_text(one)})"


def same(
    evidence: Evidence, editor: str, baseline: str, where: Where, metrics: Sequence[str], at_most: float
) -> Finding | None:
    """Check whether two editors differ by few points."""
    found = pair(scores(evidence, editor, metrics), scores(evidence, baseline, metrics), where, where)
    if found is None:
        return unpaired(evidence, [editor, baseline])
    text = ", ".join(
        f"{evidence.name(key)} {score_text(score)}" for key, score in zip((editor, baseline), found.scores, strict=True)
    )
    both = all(map(math.isnan, found.scores))
    return Finding(f"{text} ({places_text(found)})", verdict(both or abs(found.lead) <= at_most))


def hidden_change(evidence: Evidence, others: Sequence[str], where: Where, at_least: float) -> Finding | None:
    """Compare how far LS falls below the unedited model's with the share of predictions that an editor changes.

    It holds if for each editor the share of changed predictions is larger by at least some points.
    """
    said, gaps = [], []
    for editor in others:
        after, before, kept = (scores(evidence, editor, [name]) for name in ("LS", "pre_LS", "agreement"))
        known = {place: score for place, score in kept.items() if not math.isnan(score)}
        found = pair(known, known, where, where)
        if found is None:
            continue
        place = found.places[0]
        lost, changed = before.get(place, math.nan) - after[place], 1 - kept[place]
        if math.isnan(lost):
            continue
        gaps.append(changed - max(lost, 0))
        said.append(
            f"{evidence.name(editor)}: LS {0 - 100 * lost:+.1f} points, {percent(changed)} of predictions changed "
            f"({rounds_text(place)})"
        )
    return Finding("; ".join(said), verdict(min(gaps) >= at_least)) if said else None


def unpaired(evidence: Evidence, editors: Sequence[str]) -> Finding | None:
    """Return that the run has the first editor and another, but not where they can be compared; None if it has not."""
    measured = set(evidence.rounds["editor"])
    found = [editor for editor in editors if evidence.key(editor) in measured]
    there = found[:1] == list(editors[:1]) and len(found) >= min(2, len(editors))
    return Finding(NO_ROUNDS, "not testable") if there else None


def from_to(found: Pair) -> str:
    """Describe how a score changes from one place to another."""
    first, second = found.scores
    points = "" if math.isnan(first - second) else f" ({100 * (second - first):+.1f} points)"
    places = [rounds_text(place) for place in found.places]
    return f"{score_text(first)} at {places[0]}, {score_text(second)} at {places[1]}{points}"


def score_text(score: float) -> str:
    """Return a score in percent."""
    return "diverged" if math.isnan(score) else percent(score)


def rounds_text(place: Place) -> str:
    """Return rounds as "8×64"."""
    total, n_rounds = place
    return f"{n_rounds}×{total // n_rounds}"


def places_text(found: Pair) -> str:
    """Return the rounds of two scores, once if they are the same."""
    return " and ".join(dict.fromkeys(map(rounds_text, found.places)))


MEASUREMENTS: dict[str, Measurement] = {
    function.__name__: function
    for function in (loses_in_rounds, keeps_in_rounds, loses_less, ahead, same, hidden_change)
}
