#!/usr/bin/env python3
"""Write the measured part of docs/after-malmen.md from the published results; start it in the project's folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from malmen.config.load import load_file
from malmen.figures.summary import read_claims
from malmen.results.rounds import RoundsFile
from malmen.runtime.files import write_text
from malmen.runtime.text import counted

PAGE = Path("docs", "after-malmen.md")
CLAIMS = Path("data", "published", "later_claims.yaml")
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
SIGNS = {"holds": "holds", "does not hold": "**does not hold**", "not testable": "not testable"}
SCORES = ("ES", "GS", "LS")


@dataclass(frozen=True)
class Run:
    """The published results of a configuration that edits one model in rounds.

    Attributes:
        name: its name.
        title: what the page calls it.
    """

    name: str
    title: str

    @property
    def folder(self) -> Path:
        """Where they are."""
        return Path("results", self.name)

    @property
    def is_there(self) -> bool:
        """Whether it is published."""
        return (self.folder / "after_malmen.csv").is_file()

    @cached_property
    def config(self) -> Any:
        """The configuration."""
        return load_file(Path("config", f"{self.name}.yaml"))

    @property
    def model(self) -> Any:
        """The model that is edited, as the configuration describes it."""
        (model,) = self.config.models.values()
        return model

    @property
    def rounds(self) -> list[str]:
        """The names of the rounds, from one to the most."""
        return [one.name for one in self.model.rounds]

    @cached_property
    def files(self) -> dict[str, list[RoundsFile]]:
        """The rounds files by editor."""
        (model,) = self.config.models
        editors = self.config.figures["rounds"].editors
        folders = {editor: self.folder / "rounds" / model / editor for editor in editors}
        return {
            editor: [RoundsFile.read(path) for path in sorted(folder.glob("*.json")) if "cost" not in path.name]
            for editor, folder in folders.items()
        }

    @cached_property
    def claims(self) -> pd.DataFrame:
        """Findings: columns id, model (its label), verdict, measured."""
        return pd.read_csv(self.folder / "after_malmen.csv").set_index("id")

    def mean(self, editor: str, rounds: str, measure: str) -> float:
        """Return the mean of a measure over seeds, NaN if it was not measured or a seed diverged."""
        values = [run.value(measure) for file in self.files[editor] for run in file.runs if run.rounds == rounds]
        return fmean(values) if values else float("nan")

    def scores(self, editor: str, rounds: str, before: str = "") -> str:
        """Return ES / GS / LS in percent; a dash if they were not measured."""
        values = [100 * self.mean(editor, rounds, before + name) for name in SCORES]
        return "–" if any(map(isnan, values)) else " / ".join(f"{value:.1f}" for value in values)

    def table(self, name: str) -> str:
        """Return a table as it was published, without its caption."""
        text = (self.folder / "tables" / f"{name}.md").read_text(encoding="utf-8")
        return "\n".join(line for line in text.splitlines() if line.startswith("|"))

    def page(self, name: str) -> str:
        """Return a link to a file of the results, from the page."""
        return f"../{(self.folder / name).as_posix()}"


RUNS = (Run("lifelong", "A tiny GPT-2 and an invented world"), Run("lifelong_real", "SmolLM2 (135M) and zsRE"))


def measured(runs: list[Run]) -> str:
    """Return the measured part of the page."""
    parts = [part for run in runs for part in of_run(run)]
    return "\n\n".join([*parts, *verdicts(runs)])


def of_run(run: Run) -> Iterator[str]:
    """Yield the sections of one run."""
    seeds, last = run.config.seeds, run.rounds[-1]
    yield f"""### {run.title}

`snakemake --configfile config/{run.name}.yaml`; {counted(len(seeds), "seed")}.

![ES, GS and LS against the number of rounds, {run.model.label}]({run.page("figures/rounds.png")})

ES / GS / LS of all {run.model.rounds[0].total} edits after the last round, in percent. "{run.rounds[0]}" is at once.

{editors_table(run)}

![ES, GS and LS of all edits so far, round after round, {run.model.label}]({run.page("figures/course.png")})"""
    yield f"""**From no training to much.** Mean (standard deviation over seeds).

{run.table("ladder")}"""
    m = run.config.tables["moved"].n_edits
    yield f"""**How far training moved the hyper-network**, for m = {m}. A and scale cannot move in one step of Adam,
because B and the bias begin at 0.

{run.table("moved")}"""
    yield f"""**Stricter measures.** [The whole table]({run.page("tables/strict.md")}); here those of ES, at once and in
{last}.

{strict_table(run)}"""
    costs = run.page("tables/rounds_costs.md")
    yield f"""**Time and memory.** [Preparation, training and editing]({costs}) of each editor.
[Published numbers]({run.page("tables/later_editors.md")}) stand below ours, by source and protocol."""


def editors_table(run: Run) -> str:
    """Return the scores of all editors."""
    first = next(iter(run.files))
    head = ["| Editor |" + "".join(f" {name} |" for name in run.rounds), "|---|" + "---|" * len(run.rounds)]
    unedited = "| *unedited model* |" + "".join(f" *{run.scores(first, name, 'pre_')}* |" for name in run.rounds)
    rows = [
        f"| {run.model.editors[editor].label} |" + "".join(f" {run.scores(editor, name)} |" for name in run.rounds)
        for editor in run.files
    ]
    return "\n".join([*head, unedited, *rows])


def strict_table(run: Run) -> str:
    """Return how many edits hold by three measures, at once and in the most rounds."""
    names = (run.rounds[0], run.rounds[-1])
    measures = {"ES": "teacher forced", "own_ES": "own prefix", "free_ES": "free"}
    head = "| Editor |" + "".join(f" {name}, {label} |" for name in names for label in measures.values())
    lines = [head, "|---|" + "--:|" * (len(names) * len(measures))]
    for editor in (row.editor for row in run.config.tables["strict"].rows):
        values = [100 * run.mean(editor, name, measure) for name in names for measure in measures]
        cells = "".join(f" {'–' if isnan(value) else f'{value:.1f}'} |" for value in values)
        lines.append(f"| {run.model.editors[editor].label} |{cells}")
    return "\n".join(lines)


def verdicts(runs: list[Run]) -> Iterator[str]:
    """Yield the section of the claims."""
    head = "".join(f" {run.model.label} |" for run in runs)
    lines = [f"| Claim | Holds if |{head}", "|---|---|" + "---|" * len(runs)]
    for claim in read_claims(CLAIMS):
        cells = []
        for run in runs:
            verdict, found = (str(run.claims.at[claim.id, name]) for name in ("verdict", "measured"))
            cells.append(f" {SIGNS[verdict]}: {found} |" if verdict in SIGNS else " not measured |")
        lines.append(f"| {claim.claim} ({claim.section}) | {claim.holds_if} |{''.join(cells)}")
    pages = ", ".join(f"[{run.model.label}]({run.page('after_malmen.md')})" for run in runs)
    yield f"### Which claims hold\n\nOf the pages of claims: {pages}.\n\n" + "\n".join(lines)


def page(text: str, runs: list[Run]) -> str:
    """Return the page with its measured part."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{measured(runs)}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8"), [run for run in RUNS if run.is_there]))
