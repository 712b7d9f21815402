"""Judging weights that were trained again by what they do.

Training amplifies rounding: Adam turns even a gradient as small as a rounding error into a full step. Where sums are
split otherwise (another processor, another number of threads, other physical batches), weights come out differently
although nothing is wrong, and their bytes or entries tell nothing. What the paper reports of them does: the metrics of
the recorded groups, measured again with the new weights.
"""

import math
from collections.abc import Iterable
from pathlib import Path

from malmen.provenance.records import Record
from malmen.results.answers import AnswersFile
from malmen.results.metrics import GroupMetrics, MetricsFile, RunMetrics

MEASURING = "evaluate_editor"
"""The rule whose jobs measure editors."""
# Measured with the demo's GPT-2 and editor (docs/provenance.md): other batches of sequences move means of shares by
# 0.004 and the residual by 0.4 %, another seed by 0.026 and 2.3 %.
SHARE_TOLERANCE = 0.01
"""Largest difference of a share (ES, GS, LS and the like), in the mean over the groups of a run ..."""
ANSWERS_TOLERANCE = 2
"""... beside that which so many of the run's answers make if they flip."""
RESIDUAL_TOLERANCE = 0.02
"""Largest relative difference of a mean residual, which follows from the shift and so serves as its probe."""


def measuring_jobs(record: Record, records: Iterable[Record]) -> list[Record]:
    """Return the jobs that lead from what a job made to the nearest, quickest measurement; [] if none does."""
    everything = sorted(records, key=lambda one: (one.circumstances.seconds, one.name))
    chains, seen = [[record]], {record.name}
    while chains:
        longer: list[list[Record]] = []
        for chain in chains:
            made = {output.path for output in chain[-1].outputs}
            for reader in everything:
                if reader.name not in seen and made & {file.path for file in reader.inputs}:
                    seen.add(reader.name)
                    longer.append([*chain, reader])
        measured = [chain[1:] for chain in longer if chain[-1].rule == MEASURING]
        if measured:
            return min(measured, key=lambda chain: chain[-1].circumstances.seconds)
        chains = longer
    return []


def do_the_same(there: Path, again: Path) -> bool:
    """Return whether two metrics files agree within the tolerances for weights that were trained again.

    Raises:
        UserError: if one of them is no metrics file.
    """
    old, new = (MetricsFile.read(path).runs for path in (there, again))
    return len(old) == len(new) and all(map(runs_agree, old, new))


def answers_agree(there: Path, again: Path, tolerance: float) -> bool:
    """Return whether two answers files hold the same prompts, and answers of which at most few differ.

    Args:
        there: a file.
        again: the other.
        tolerance: the largest share of answers that differ, beside :data:`ANSWERS_TOLERANCE`.

    Raises:
        UserError: if one of them is no answers file.
    """
    old, new = (AnswersFile.read(path) for path in (there, again))
    if old.prompts != new.prompts or list(map(len, old.answers)) != list(map(len, new.answers)):
        return False
    pairs = [pair for some in zip(old.answers, new.answers, strict=True) for pair in zip(*some, strict=True)]
    return sum(one != other for one, other in pairs) <= tolerance * len(pairs) + ANSWERS_TOLERANCE


def runs_agree(old: RunMetrics, new: RunMetrics) -> bool:
    """Return whether the means over groups of two runs agree; runs that diverged agree with each other."""
    if (old.n_edits, old.seed, old.status, len(old.groups)) != (new.n_edits, new.seed, new.status, len(new.groups)):
        return False
    shares = SHARE_TOLERANCE + ANSWERS_TOLERANCE / max(1, old.n_edits * len(old.groups))
    for name in GroupMetrics.model_fields:
        before, after = old.mean(name), new.mean(name)
        if math.isnan(before) or math.isnan(after):  # The editor has no such metric, or the run diverged.
            agrees = math.isnan(before) and math.isnan(after)
        else:
            agrees = abs(after - before) <= (RESIDUAL_TOLERANCE * before if name == "residual" else shares)
        if not agrees:
            return False
    return True
