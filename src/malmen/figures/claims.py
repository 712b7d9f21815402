"""Measurements that check the paper's claims against the numbers of a run.

Each takes the evidence of one model and returns a :class:`Finding`, or None if the run has no such data. Performance is
the mean of ES, GS and LS over seeds, without diverged runs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from malmen.figures.compute import bytes_text
from malmen.figures.evidence import Evidence, Finding, Measurement, percent, verdict


def edits_ratio(evidence: Evidence, editor: str, baseline: str, at_least: float) -> Finding | None:
    """Find the largest factor by which an editor can make more edits than the baseline without being worse.

    For each m of the baseline, it is the largest m up to which the editor is at least as good, divided by that m.
    """
    ours, theirs = evidence.scores(editor), evidence.scores(baseline).dropna()
    if ours.empty or theirs.empty:
        return None
    kept = {m: ours[(ours >= score).cummin()] for m, score in zip(theirs.index.tolist(), theirs, strict=True)}
    reach = {m: int(scores.index[-1]) for m, scores in kept.items() if len(scores)}
    if not reach:
        return Finding(f"{evidence.name(editor)} is below {evidence.name(baseline)} throughout", "does not hold")
    start = max(reach, key=lambda m: reach[m] / m)
    end, ratio = reach[start], reach[start] / start
    reached = f"{evidence.name(editor)} with m = {end} ({percent(ours[end])})"
    text = f"{reached} is no worse than {evidence.name(baseline)} with m = {start} ({percent(theirs[start])}), "
    text += "but at no larger m than that" if ratio == 1 else f"with {ratio:g} times as many edits"
    if ratio < at_least and max(reach.values()) == ours.index[-1]:
        return Finding(f"{text}; no m beyond {ours.index[-1]} was run", "not testable")
    return Finding(text, verdict(ratio >= at_least))


def above_at_largest(evidence: Evidence, editor: str, others: Sequence[str]) -> Finding | None:
    """Compare an editor with each of the others, at the largest m at which both were measured and did not diverge."""
    pairs = {key: evidence.both(editor, key).dropna() for key in others}
    lasts = {key: pair.iloc[-1] for key, pair in pairs.items() if len(pair)}
    if not lasts:
        return None
    text = "; ".join(
        side_by_side(evidence, editor, {key: last for key, last in lasts.items() if last.name == m})
        for m in dict.fromkeys(last.name for last in lasts.values())
    )
    return Finding(text, verdict(all(last["editor"] > last["baseline"] for last in lasts.values())))


def side_by_side(evidence: Evidence, editor: str, lasts: Mapping[str, "pd.Series[float]"]) -> str:
    """Describe the scores of an editor and others at one m; ``lasts`` maps others to rows of :meth:`Evidence.both`."""
    row = next(iter(lasts.values()))
    reached = {editor: row["editor"], **{key: last["baseline"] for key, last in lasts.items()}}
    scores = ", ".join(f"{evidence.name(key)} {percent(score)}" for key, score in reached.items())
    return f"{scores} at m = {row.name}"


def falls_faster(evidence: Evidence, editor: str, baseline: str) -> Finding | None:
    """Compare the losses of performance of two editors from the smallest to the largest m."""
    pair = evidence.both(editor, baseline).dropna()
    if len(pair) < 2:
        return None
    fall = pair.iloc[0] - pair.iloc[-1]
    text = f"from m = {pair.index[0]} to {pair.index[-1]}: " + ", ".join(
        f"{evidence.name(key)} {-100 * fall[column]:+.1f} points"
        for key, column in ((editor, "editor"), (baseline, "baseline"))
    )
    return Finding(text, verdict(fall["editor"] > max(fall["baseline"], 0)))


def gap_to_lead(evidence: Evidence, editor: str, others: Sequence[str], metric: str, at_most: float) -> Finding | None:
    """Compare an editor with the best of the others at each value of m at which one of them was measured."""
    ours = evidence.scores(editor, (metric,)).dropna()
    best = (
        pd.DataFrame({key: evidence.scores(key, (metric,)) for key in others}).reindex(ours.index).max(axis=1).dropna()
    )
    if best.empty:
        return None
    gap = (best - ours).dropna()
    text = f"{evidence.name(editor)}'s {metric} is at most {100 * gap.max():.1f} points below (m = {gap.idxmax()})"
    text = text if gap.max() > 0 else f"{evidence.name(editor)}'s {metric} leads at every m"
    return Finding(text, verdict(gap.max() < at_most))


def worse_or_diverged(evidence: Evidence, editor: str, baseline: str, at_least: float) -> Finding | None:
    """Check whether an editor diverged with every seed, or is below the baseline, at the largest m of both."""
    pair = evidence.both(editor, baseline).dropna(subset="baseline")
    if pair.empty:
        return None
    last = pair.iloc[-1]
    if np.isnan(last["editor"]):
        return Finding(f"{evidence.name(editor)}: all seeds diverged at m = {pair.index[-1]}", "holds")
    text = side_by_side(evidence, editor, {baseline: last})
    return Finding(text, verdict(last["baseline"] - last["editor"] >= at_least))


def time_saved(evidence: Evidence, editor: str, baseline: str, at_least: float) -> Finding | None:
    """Compare the times of training plus one edit, at the largest m of both."""
    times = {"editor": evidence.seconds(editor), "baseline": evidence.seconds(baseline)}
    pair = pd.concat(times, axis=1, join="inner")
    if pair.empty:
        return None
    ours, theirs = pair.iloc[-1]["editor"], pair.iloc[-1]["baseline"]
    saved = 1 - ours / theirs
    change = f"{abs(100 * saved):.1f} % {'less' if saved >= 0 else 'more'} time"
    change = f"{ours / theirs:.1f} times as much time" if saved <= -1 else change
    text = f"{evidence.name(editor)} {ours:.3g} s, {evidence.name(baseline)} {theirs:.3g} s at m = {pair.index[-1]}"
    return Finding(f"{text}: {change}", verdict(saved > 0 and saved >= at_least))


def residual_grows(evidence: Evidence, editor: str, baseline: str) -> Finding | None:
    """Compare the mean residuals of two editors at their smallest and largest m."""
    pair = evidence.both(editor, baseline, ("residual",)).dropna()
    if len(pair) < 2:
        return None
    first, last = pair.iloc[0], pair.iloc[-1]
    text = f"from m = {pair.index[0]} to {pair.index[-1]}: " + ", ".join(
        f"{evidence.name(key)} {first[column]:.3g} to {last[column]:.3g}"
        for key, column in ((editor, "editor"), (baseline, "baseline"))
    )
    return Finding(text, verdict(bool((last > first).all())))


def residual_ratio(evidence: Evidence, editor: str, baseline: str, at_least: float) -> Finding | None:
    """Compare the mean residuals of two editors by the geometric mean of their ratio over m."""
    pair = evidence.both(editor, baseline, ("residual",)).dropna()
    if pair.empty:
        return None
    ratios = pair["baseline"] / pair["editor"]
    mean = float(np.exp(np.log(ratios).mean()))
    text = f"{mean:.3g} times smaller ({ratios.min():.3g} to {ratios.max():.3g} over m; {np.log10(mean):.1f} orders)"
    return Finding(text, verdict(mean >= at_least))


def memory_growth(evidence: Evidence, at_most: float) -> Finding | None:
    """Compare the growth in peak memory of the two computations from the smallest to the largest m."""
    if evidence.memory is None:
        return None
    ours, theirs = (
        {step.n_edits: step.peak_bytes for step in evidence.memory.steps(name)}
        for name in ("separated", "concatenated")
    )
    beyond = [m for m, peak in theirs.items() if peak is None and ours.get(m)]
    if beyond:
        return Finding(f"MEND-style is over the limit from m = {beyond[0]} on, where MALMEN fits", "holds")
    pair = pd.DataFrame({"MALMEN": ours, "MEND-style": theirs}, dtype=float).dropna()
    if len(pair) < 2:
        return None
    first, last = pair.iloc[0], pair.iloc[-1]
    peaks = ", ".join(f"{name} {bytes_text(first[name])} to {bytes_text(last[name])}" for name in pair.columns)
    growth = last - first
    slower = growth["MEND-style"] > 0 and growth["MALMEN"] <= at_most * growth["MEND-style"]
    return Finding(f"from m = {pair.index[0]} to {pair.index[-1]}: {peaks}", verdict(slower))


MEASUREMENTS: dict[str, Measurement] = {
    function.__name__: function
    for function in (
        edits_ratio,
        above_at_largest,
        falls_faster,
        gap_to_lead,
        worse_or_diverged,
        time_saved,
        residual_grows,
        residual_ratio,
        memory_growth,
    )
}
