#!/usr/bin/env python3
"""Write docs/results.md and the README's table from the published results; start it in the project's folder."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from malmen.config.load import load_file
from malmen.figures.summary import read_claims, tally
from malmen.provenance.records import environment_path, read_environment, read_records
from malmen.runtime.files import write_text

PAGE, README = Path("docs", "results.md"), Path("README.md")
FORMS = Path("benchmarks", "results", "prompt_form.json")
CLAIMS = Path("data", "published", "claims.yaml")
SIGNS = {"holds": "holds", "does not hold": "**does not hold**", "not testable": "not testable"}
METRICS = ("ES", "GS", "LS")


def triple(values: Iterable[float]) -> str:
    """Return ES / GS / LS, given in percent; a dash if they were not measured."""
    known = list(values)
    return "–" if any(map(isnan, known)) else " / ".join(f"{value:.1f}" for value in known)


@dataclass(frozen=True)
class Published:
    """The published results of a configuration.

    Attributes:
        run: its name.
    """

    run: str

    @property
    def folder(self) -> Path:
        """Where they are."""
        return Path("results", self.run)

    @property
    def is_there(self) -> bool:
        """Whether it is published."""
        return (self.folder / "records").is_dir()

    @cached_property
    def config(self) -> Any:
        """The configuration."""
        return load_file(Path("config", f"{self.run}.yaml"))

    @cached_property
    def claims(self) -> pd.DataFrame:
        """Findings: columns id, model (its label), verdict, measured."""
        return pd.read_csv(self.folder / "summary.csv")

    @property
    def tally(self) -> str:
        """How many findings hold, do not, and could not be tested."""
        return tally(self.claims["verdict"].tolist())

    def figure(self, name: str) -> pd.DataFrame:
        """Return the data of a figure."""
        return pd.read_csv(self.folder / "figures" / f"{name}.csv")

    def score(self, figure: str, editor: str, n_edits: int, metric: str) -> float:
        """Return the mean of a metric over seeds, in percent; NaN if it was not measured."""
        data = self.figure(figure)
        rows = data[(data["editor"] == editor) & (data["n_edits"] == n_edits) & (data["metric"] == metric)]
        return 100 * float(rows["value"].mean())

    def scores(self, figure: str, editor: str, n_edits: int) -> str:
        """Return ES / GS / LS in percent; a dash if they were not measured."""
        return triple(self.score(figure, editor, n_edits, metric) for metric in METRICS)

    def before(self, figure: str) -> str:
        """Return ES / GS / LS of the unedited model in percent, at the largest m."""
        data = self.figure(figure)
        m, editor = int(data["n_edits"].max()), "malmen"
        return triple(self.score(figure, editor, m, f"pre_{metric}") for metric in METRICS)

    def curve_table(self, figure: str) -> str:
        """Return a table of a curve: a row for each m, a column for each editor."""
        data, curve = self.figure(figure), self.config.figures[figure]
        names = list(reversed(curve.editors))
        labels = [self.config.editors[name].label for name in names]
        lines = [f"| m | {' | '.join(labels)} |", "|--:|" + "---|" * len(names)]
        for m in sorted(data["n_edits"].unique()):
            lines.append(f"| {m:,} | {' | '.join(self.scores(figure, name, int(m)) for name in names)} |")
        return "\n".join(lines)

    def made(self) -> str:
        """Say where and by what code the results were made, and what it took."""
        about = [record.circumstances for record in read_records(self.run)]
        machines = {
            (found.processor, found.cores, found.gpu)
            for environment in {one.environment for one in about}
            for found in [read_environment(environment_path(self.run, environment))]
        }
        where = ", ".join(
            f"{processor}, {cores} cores{f', {gpu}' if gpu else ''}" for processor, cores, gpu in machines
        )
        commits = ", ".join(sorted({one.commit[:9] for one in about if one.commit}))
        hours = sum(one.cpu_seconds for one in about) / 3600
        peak = max(one.peak_bytes for one in about) / 1e9
        return (
            f"{len(about)} steps, {hours:.1f} h of processor time, at most {peak:.1f} GB of memory; {where}; {commits}"
        )


def verdicts(runs: Iterable[Published]) -> str:
    """Return a table of the claims, with a column for each model."""
    findings = pd.concat([run.claims for run in runs])
    models = list(dict.fromkeys(findings["model"]))
    lines = [f"| Claim of the paper | {' | '.join(models)} |", "|---|" + "---|" * len(models)]
    for claim in read_claims(CLAIMS):
        of_claim = findings[findings["id"] == claim.id].set_index("model")["verdict"]
        if len(of_claim):
            cells = (SIGNS.get(str(of_claim.get(model)), "–") for model in models)
            lines.append(f"| {claim.claim} ({claim.section}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def about_scan(scan: Published) -> str:
    """Return the scan of hyper-parameters as a table: a row for each setting, ES / GS / LS for each model."""
    data = pd.read_csv(scan.folder / "tuning.csv")
    models = list(scan.config.models)
    lines = [
        f"| Setting | {' | '.join(scan.config.models[name].label for name in models)} |",
        "|---|" + "---|" * len(models),
    ]
    for name, editor in scan.config.editors.items():
        cells = []
        for model in models:
            rows = data[(data["editor"] == name) & (data["model"] == model)]
            cells.append(triple(100 * rows[rows["metric"] == metric]["value"].mean() for metric in METRICS))
        lines.append(f"| {editor.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def prompt_forms() -> str:
    """Return what a look at the form of prompts found."""
    found = json.loads(FORMS.read_text(encoding="utf-8"))
    lines = ["| Form | unedited | MALMEN | FT |", "|---|---|---|---|"]
    for form, editors in found["forms"].items():
        before = triple(100 * editors["FT"][f"pre_{metric}"] for metric in METRICS)
        after = [triple(100 * editors[name][metric] for metric in METRICS) for name in ("MALMEN", "FT")]
        lines.append(f"| `{form}` | {before} | {' | '.join(after)} |")
    table = "\n".join(lines)
    return f"""## The form of the prompts

The run gives questions to SmolLM2 plainly. `benchmarks/prompt_form.py` compared that once with `Q: ... A:`, on the
tuning split at m = {found["n_edits"]}, with editors of {found["steps"]} meta-steps. ES / GS / LS:

{table}

The second form gives more right answers before the edit, and a higher GS after it; no editor gains by it alone."""


def section(run: Published, name: str, title: str, text: str) -> str:
    """Return the section of a figure: its picture, and what it shows."""
    file = f"../{(run.folder / 'figures' / name).as_posix()}"
    return f"### {title}\n\n![{title}]({file}.png)\n\n{text.strip()} Data: [{name}.csv]({file}.csv)."


def table(run: Published, name: str, title: str, text: str, whole: bool = False) -> str:
    """Return the section of a table: what it shows, and the table itself or a link to it."""
    file = run.folder / "tables" / f"{name}.md"
    parts = [f"### {title}", f"{text.strip()} File: [{file.name}](../{file.as_posix()})."]
    if whole:
        parts.append(file.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts)


ABOUT = {
    "real": "SmolLM2 (135M) and MiniLM (23M), real weights from the Python package index; zsRE and FEVER",
    "demo": "five tiny models of an invented world",
}
"""What each run is made of."""

CHECK = "malmen audit --figures-only --configfile config/real.yaml"


def page(real: Published, demo: Published, scan: Published) -> str:
    """Return the page; it leaves out what is not published."""
    parts = [head([run for run in (real, demo) if run.is_there]), *of_real(real)]
    parts += [about_settings(scan)] if scan.is_there else []
    parts += [prompt_forms()] if FORMS.is_file() else []
    parts += of_demo(demo) if demo.is_there else []
    return "\n\n".join(part.strip() for part in (*parts, ENDING.format(steps=steps(real, "figure5", 1024)))) + "\n"


def head(runs: Iterable[Published]) -> str:
    """Return what was run, where, and how to check it."""
    rows = (
        f"| [`config/{run.run}.yaml`](../config/{run.run}.yaml) | {ABOUT[run.run]} | {run.made()} |" for run in runs
    )
    lines = [
        "# Results of record",
        "`make results-page` writes this page from the published files of these runs. To check them in a fresh clone, "
        f"which computes nothing: `{CHECK}`.",
        "\n".join(["| Run | Models and data | Made |", "|---|---|---|", *rows]),
    ]
    return "\n\n".join(lines)


def of_real(real: Published) -> Iterator[str]:
    """Yield the sections of the run on real models."""
    yield f"""## On a real language model

SmolLM2 and questions of zsRE. Each cell is ES / GS / LS in percent, the mean over seeds. Unedited, the model has
{real.before("figure5")}.

{real.curve_table("figure5")}"""
    yield f"""### Which of the paper's claims hold

{real.tally} [The numbers](../{real.folder.as_posix()}/summary.md) of each verdict.

{verdicts([real])}"""
    for name, (title, text) in about_figures(real).items():
        yield section(real, name, title, text)
    yield table(real, "table1", "Table 1: ablations", "Each row changes one thing of MALMEN, at m = 64.", whole=True)
    yield table(real, "table2", "Table 2: answer tokens or all", "Caching all tokens takes more time.", whole=True)
    yield table(real, "compute", "Time and memory", "What training and editing took, by editor and m.")
    yield """### Tables 4 and 5: what goes wrong

They quote records of the data sets, which are other people's text, so they are not in the repository. A run of your own
has them, and `malmen explore` shows every kept answer."""


def about_figures(real: Published) -> dict[str, tuple[str, str]]:
    """Return the title of each figure, and two sentences on what it shows."""
    at = real.scores
    return {
        "figure4": (
            "Figure 4: MiniLM, a fact checker of FEVER",
            f"""At m = 256 MALMEN has {at("figure4", "malmen", 256)}, MEND {at("figure4", "mend", 256)} and fine-tuning
{at("figure4", "ft", 256)}; the unedited model has {real.before("figure4")}. The unrelated claims are
few, and many tuples share one.""",
        ),
        "figure5": (
            "Figure 5: SmolLM2 on zsRE",
            f"""Up to m = 256 MALMEN keeps the edits ({at("figure5", "malmen", 256)}), where MEND, its hyper-network
with summed shifts, has lost half of them at m = 64 ({at("figure5", "mend", 64)}). MALMEN's editor for m = 1,024
saw only {steps(real, "figure5", 1024)} meta-steps, while its loss still fell, and has
{at("figure5", "malmen", 1024)}; fine-tuning with settings chosen for this model, among them four times the paper's
epochs, has {at("figure5", "ft", 1024)}.""",
        ),
        "figure8": (
            "Figure 8: the residual of the aggregated shift",
            """The shift that solves the normal equation leaves a smaller residual than the sum of shifts. The verdicts
above say by how many orders of magnitude.""",
        ),
        "figure9": (
            "Figure 9: memory of a training step",
            """MALMEN's meta-step takes little more memory than the loaded model at every m, because it runs the model
and the hyper-network apart. Run together, as MEND does, they exceed the limit of 6 GB at m = 1,024.""",
        ),
    }


def steps(run: Published, figure: str, n_edits: int) -> int:
    """Return how many meta-steps MALMEN's editor for m edits has seen."""
    model = run.config.models[run.config.figures[figure].model]
    counts = Path("data", run.run, run.config.data.source, model.dataset, "counts.json")
    n_tuples = json.loads(counts.read_text(encoding="utf-8"))["split_train"]
    return int(model.editors["malmen"].training.steps(n_tuples, n_edits))


def about_settings(scan: Published) -> str:
    """Return how the settings of the run on real models were chosen."""
    return f"""## How the settings were chosen

`snakemake tuning --configfile config/real_scan.yaml` measured these on the tuples held out for tuning, at m = 64 and
with one seed; the validation split was not used. ES / GS / LS:

{about_scan(scan)}"""


def of_demo(demo: Published) -> Iterator[str]:
    """Yield the sections of the demo."""
    yield f"""## The demo

It shows all of the paper's figures and tables on tiny models in minutes. {demo.tally}
[The numbers](../{demo.folder.as_posix()}/summary.md) of each verdict.

{verdicts([demo])}"""
    for name, figure in demo.config.figures.items():
        yield section(demo, name, f"Figure {name.removeprefix('figure')}", ABOUT_DEMO[figure.kind])
    for name in demo.config.tables:
        yield table(demo, name, f"Table {name.removeprefix('table')}", ABOUT_TABLES[name])


ABOUT_DEMO = {
    "scaling": "As m grows, MEND falls faster than MALMEN. The models are tiny, and were trained on the spot.",
    "residual": "The sum of shifts leaves a larger residual at every m. The gap is smaller than the paper's.",
    "memory": "MALMEN's memory hardly grows with m. That of MEND's computation does.",
}
ABOUT_TABLES = {
    "table1": "Each row changes one thing of MALMEN. Without regularisation, training diverges.",
    "table2": "Caching all tokens takes more time. At this size it also edits better, unlike in the paper.",
    "table3": "MALMEN keeps more edits than MEND on BART. The paper's numbers stand beside ours.",
    "table4": "Edited questions that the edited model answers wrongly. The world is invented, so the text is ours.",
    "table5": "Unrelated questions that an edit spoiled. The world is invented, so the text is ours.",
}
ENDING = """## What differs from the paper

- **T5-XL and GPT-J have no real weights within reach of a package index**: their curves (Figures 6 and 7) are shown on
  tiny models only. [`config/paper.yaml`](../config/paper.yaml) has them, and nobody has run it as a whole.
- SmolLM2 is a model of 135 million weights, tuned to follow instructions and packed in 4 bits, made float32.
- Editors are trained for at most 100 meta-steps. SmolLM2's for m = 1,024 takes {steps}, and its loss still falls; the
  paper takes whole passes over more than a hundred thousand tuples.
- Fine-tuning has settings chosen for each model on the tuning split (20 epochs; the paper has 5), and is the strongest
  editor here. LS can fall little, as SmolLM2 knows few of the unrelated answers.
- CounterFact, and Table 1 on MiniLM, have not been run.
- [deviations.md](deviations.md) lists every difference of the methods."""


def readme(text: str, real: Published) -> str:
    """Return the README with its table of Figure 5 written anew."""
    start, end = "<!-- figure5 -->\n", "<!-- end -->"
    before, _, rest = text.partition(start)
    unedited = f"| unedited | {real.before('figure5')} |" + " |" * (len(real.config.figures["figure5"].editors) - 1)
    table = f"{real.curve_table('figure5')}\n{unedited}\n"
    return before + start + table + end + rest.partition(end)[2]


def main() -> None:
    """Write the page, and the README's table."""
    real = Published("real")
    write_text(PAGE, page(real, Published("demo"), Published("real_scan")))
    write_text(README, readme(README.read_text(encoding="utf-8"), real))


if __name__ == "__main__":
    main()
