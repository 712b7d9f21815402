"""The whole configuration, and what it asks for: which editors are measured on which models, and at which m."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from malmen.config.base import Name, Section, Seeds
from malmen.config.cache import Cache
from malmen.config.data import Data
from malmen.config.editors import Editor
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.models import Model
from malmen.config.outputs import Ablation, Comparison, Failures, Figures
from malmen.runtime.signals import SAVE_SECONDS


class Evaluation(Section):
    """How editors are measured."""

    max_groups: PositiveInt | None = None
    """Groups of m edits measured for each m; null means all whole groups of the validation split."""


class Jobs(Section):
    """How many runs of an editor one job makes: more save start-up where models are tiny, one each suits clusters."""

    sizes: PositiveInt = 1
    """Values of m in a job, of its training and of its measurement."""
    seeds: PositiveInt = 1
    """Seeds in a job, likewise."""
    save_seconds: Annotated[float, Field(ge=0)] = SAVE_SECONDS
    """Running work is saved so often, in seconds; an interrupted job goes on from there. It changes no result."""


class Config(Section):
    """A whole configuration."""

    profile: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    """Names the results: they go to ``results/<profile>/``, so those of two configurations never mix."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where models run. With "cuda" each such job asks Snakemake for the resource gpu=1."""
    threads: PositiveInt = 1
    """CPU threads of a job; sums are split by them, so another number can change last digits."""
    check_machine: bool = True
    """Whether a run is refused before it starts if this machine has too little disk or memory for it, by the estimate
    of `malmen plan`."""
    seeds: Seeds = [0, 1, 2]
    """One run of every editor for each; figures show mean and standard deviation."""
    data: Data = Data()
    """Edit tuples."""
    editors: dict[Name, Editor] = {}
    """Editors by name."""
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    """Language models by name."""
    evaluation: Evaluation = Evaluation()
    """How much is measured."""
    jobs: Jobs = Jobs()
    """How work is cut into jobs."""
    cache: Cache | None = None
    """Whether what runs on a model share is computed once, into files; null: every run computes it."""
    figures: Figures = Figures()
    """What the figures show."""
    table1: Ablation | None = None
    """Table 1, an ablation; null leaves the table out, as in those below."""
    table2: Ablation | None = None
    """Table 2, an ablation with times."""
    table3: Comparison | None = None
    """Table 3."""
    table4: Failures | None = None
    """Table 4: failures of edit and equivalent tuples."""
    table5: Failures | None = None
    """Table 5: failures of unrelated tuples."""

    def memory_uses(self) -> Iterator[tuple[str, str, str]]:
        """Yield which model and editors Figure 9 asks for; they need not be trained or measured."""
        if memory := self.figures.figure9:
            yield from (("figures.figure9", memory.model, editor) for editor in (memory.separated, memory.concatenated))

    def batches(self, model: str, editor: str) -> list[tuple[list[int], list[int]]]:
        """Return the values of m and the seeds that each job of an editor on a model takes."""
        sizes = cut(self.sizes(model, editor), self.jobs.sizes)
        return [(some, seeds) for some in sizes for seeds in cut(self.seeds, self.jobs.seeds)]

    def sharing(self, model: str, editor: str) -> str | None:
        """Return under which editor's name what an editor's runs on a model share is kept; None if it is not.

        It is the first of the editors that cache the same positions of the same layers.
        """
        trained = {
            name: (settings.ffn_layers, settings.last_blocks, settings.blocks, settings.hypernetwork.tokens)
            for name, settings in self.models[model].editors.items()
            if isinstance(settings, HyperNetworkEditorSettings)
        }
        if self.cache is None or editor not in trained:
            return None
        alike = [name for name, cached in trained.items() if cached == trained[editor]]
        runs = len(self.seeds) * sum(len(self.sizes(model, name)) for name in alike)
        return alike[0] if runs >= self.cache.min_runs else None

    @property
    def folders(self) -> list[Path]:
        """The folders that hold nothing but what this configuration made."""
        return [Path("results", self.profile), Path("data", self.profile)]

    @property
    def unpinned(self) -> list[str]:
        """The models that are to be fetched from the hub, but of which no revision is set."""
        return [name for name, m in self.models.items() if m.pretrained and not m.directory and not m.revision]

    @property
    def tables(self) -> list[str]:
        """The names of the tables that are made."""
        return [name for name in ("table1", "table2", "table3", "table4", "table5") if getattr(self, name)]

    def uses(self) -> Iterator[tuple[str, str, str, list[int] | None]]:
        """Yield where which model and editor are asked for, and the values of m to be measured (None: the model's)."""
        for name, figure in self.figures.curves.items():
            yield from ((f"figures.{name}", figure.model, editor, figure.n_edits) for editor in figure.editors)
        for name in self.tables:
            table = getattr(self, name)
            if isinstance(table, Ablation):
                yield from ((name, model, row.editor, [table.n_edits]) for row in table.rows for model in table.models)
            elif isinstance(table, Comparison):
                yield from ((name, table.model, editor, table.n_edits) for editor in table.editors)
            else:
                yield name, table.model, table.editor, [table.n_edits]

    def sizes(self, model: str, editor: str | None = None) -> list[int]:
        """Return the values of m at which an editor (or any) is measured on a model, in ascending order."""
        sizes: set[int] = set()
        for _, used, by, own in self.uses():
            if used == model and editor in (None, by):
                sizes |= set(self.models[model].n_edits if own is None else own)
        return sorted(sizes)

    def tuning_sizes(self, model: str) -> list[int]:
        """Return the values of m at which hyper-parameters are compared: those that the tuning split can hold."""
        most = self.data.at_most(self.models[model].dataset, "tune")
        return [m for m in sorted(self.models[model].n_edits) if most is None or m <= most]


def cut(values: Sequence[int], length: int) -> list[list[int]]:
    """Return the values in lists of at most ``length``."""
    return [list(values[start : start + length]) for start in range(0, len(values), length)]
