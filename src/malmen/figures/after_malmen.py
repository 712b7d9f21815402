"""The page on what came after MALMEN: claims about editing in rounds beside what this run measured."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from malmen.figures.evidence import Evidence
from malmen.figures.metrics import long_form as metrics_form
from malmen.figures.rounds_values import labels_of, long_form, read_rounds
from malmen.figures.summary import About, write_summary
from malmen.results.rounds import MEASURES

HEADING = "After MALMEN: claims about editing in rounds"
REMARK = (
    "Scores are means over seeds, and over ES, GS and LS unless another measure is named. “1×512” is at once, “8×64” "
    "in 8 rounds of 64 edits. Findings are not independent: several rest on the same runs. The claims were made of "
    "larger models and of more edits."
)
UNTESTABLE = "Not testable: the run lacks an editor, or the rounds at which the claim could be measured."


def collect_rounds(paths: Sequence[Path], models: Mapping[str, str]) -> list[Evidence]:
    """Return the evidence of each model that has runs in rounds.

    Args:
        paths: all rounds files.
        models: the printed names of the models, by key, in the order of the page.

    Raises:
        UserError: if a file is missing or malformed.
    """
    files = read_rounds(paths)
    values = long_form(files, [name for measure in MEASURES for name in (measure, f"pre_{measure}")])
    return [
        Evidence(
            label=label,
            metrics=metrics_form([]),
            costs=pd.DataFrame(),
            memory=None,
            labels=labels_of([item for item in files if item.model == model]),
            variants={},
            rounds=values[values["model"] == model],
        )
        for model, label in models.items()
        if model in set(values["model"])
    ]


def write_after_malmen(claims: Path, evidence: Sequence[Evidence], about: About, stem: Path) -> None:
    """Write the page as ``stem.md`` and ``stem.html``, and its findings as ``stem.csv``.

    Args:
        claims: the later papers' claims.
        evidence: the runs in rounds of each model.
        about: what the page says of the run; its heading and remarks are set here.
        stem: path of the results without suffix.

    Raises:
        UserError: if the claims cannot be read.
    """
    said = replace(about, heading=HEADING, remark=REMARK, untestable=UNTESTABLE, times=False)
    write_summary(claims, evidence, said, stem)
