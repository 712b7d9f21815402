"""The whole configuration, and what it asks for: which editors are measured on which models, and at which m."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, NonNegativeInt, PositiveInt

from malmen.config.base import Name, Section, Seeds
from malmen.config.cache import Cache
from malmen.config.data import Data
from malmen.config.editors import Editor, EditorSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings, InRoundsSettings
from malmen.config.models import Model
from malmen.config.outputs import (
    Ablation,
    Comparison,
    Course,
    Curve,
    Failures,
    Figure,
    InRounds,
    Memory,
    MovedTable,
    PublishedRounds,
    RoundsCosts,
    RoundsTable,
    Table,
)
from malmen.config.rounds import Rounds
from malmen.runtime.signals import SAVE_SECONDS

V = TypeVar("V")
T = TypeVar("T", Ablation, Comparison, Failures, RoundsTable, RoundsCosts, PublishedRounds, MovedTable)


class EvaluationSettings(Section):
    """How editors are measured."""

    max_groups: PositiveInt | None = None
    """Groups of m edits measured for each m; null means all whole groups of the validation split."""
    max_edits: PositiveInt | None = None
    """Edits measured for each m, in at least one group, so many groups at a small m; null means no limit."""
    max_edits_of: dict[str, PositiveInt] = {}
    """The same for single editors, by their names: fewer for one that takes long for each edit."""
    answers: NonNegativeInt = 64
    """Tuples whose answers each run keeps as text, for the explorer: the first of the validation split; 0: none."""
    decoded: NonNegativeInt = 64
    """Tuples, the first of those edited, whose answers the model also decodes by itself after its rounds; 0: none."""
    perplexity_texts: NonNegativeInt = 64
    """Lines of the data set's text.txt on which perplexity is measured after rounds; 0: none."""

    def groups(self, n_edits: int, editor: str | None = None) -> int | None:
        """Return the largest number of groups of m edits that an editor is measured on; None for all whole groups."""
        most = self.max_edits_of.get(editor or "", self.max_edits)
        limits = [self.max_groups, max(1, most // n_edits) if most else None]
        return min((limit for limit in limits if limit is not None), default=None)

    def tuples(self, sizes: Iterable[int], editor: str | None = None) -> int | None:
        """Return how many tuples of a split, the first, an editor is measured on with these m; None for all of them."""
        groups = {m: self.groups(m, editor) for m in sizes}
        return None if None in groups.values() else max(m * (number or 0) for m, number in groups.items())


class Jobs(Section):
    """How many runs of an editor one job makes: several save start-up time with tiny models, one suits clusters."""

    n_edits_per_job: PositiveInt = 1
    """Values of m that one training job, or one evaluation job, takes."""
    seeds_per_job: PositiveInt = 1
    """Seeds that one job takes."""
    save_seconds: Annotated[float, Field(ge=0)] = SAVE_SECONDS
    """Seconds between saves of running work; an interrupted job continues from the last. It changes no result."""


class Config(Section):
    """A whole configuration."""

    run: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    """Names the results: they go to ``results/<run>/``, so those of two configurations never mix."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where models run. With "cuda" each such job asks Snakemake for the resource gpu, by the model's ``gpus``."""
    threads: PositiveInt = 1
    """CPU threads of each process of a job; sums are split by them, so another number can change last digits."""
    check_machine: bool = True
    """Whether a run is refused before it starts if this machine has too little disk or memory for it, by the estimate
    of `malmen plan`."""
    seeds: Seeds = [0, 1, 2]
    """One run of every editor for each; figures show mean and standard deviation."""
    one_seed_from: PositiveInt | None = None
    """From this m on, every editor runs with the first seed alone; null: with all seeds at every m."""
    data: Data = Data()
    """Edit tuples."""
    editors: dict[Name, Editor] = {}
    """Editors by name."""
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    """Language models by name."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How much is measured."""
    jobs: Jobs = Jobs()
    """How many runs a job makes."""
    cache: Cache | None = None
    """Keeps what the runs on a model share in files; null: every run computes it."""
    figures: dict[Name, Figure] = {}
    """Figures by name, which is also that of their files."""
    tables: dict[Name, Table] = {}
    """Tables by name, which is also that of their files; the table "compute" of times and memory is always made."""

    @property
    def curves(self) -> dict[str, Curve]:
        """The figures drawn from editors' measurements, by name."""
        return {name: figure for name, figure in self.figures.items() if isinstance(figure, Curve)}

    @property
    def memory_figures(self) -> dict[str, Memory]:
        """The figures of memory, by name."""
        return {name: figure for name, figure in self.figures.items() if isinstance(figure, Memory)}

    def tables_of(self, kind: type[T]) -> dict[str, T]:
        """The tables of a kind, by name."""
        return {name: table for name, table in self.tables.items() if isinstance(table, kind)}

    def memory_uses(self) -> Iterator[tuple[str, str, str]]:
        """Yield where which model and editors are asked for whose memory is measured; they need not be trained."""
        for name, figure in self.memory_figures.items():
            yield from ((f"figures.{name}", figure.model, editor) for editor in (figure.separated, figure.concatenated))

    def sharing(self, model: str, editor: str) -> str | None:
        """Return under which editor's name what an editor's runs on a model share is kept; None if it is not.

        It is the first of the editors that cache the same positions of the same layers. What is kept belongs to the
        unedited model, which is of no use to an editor that is trained with a rollout.
        """
        trained = {
            name: (settings.ffn_layers, settings.last_blocks, settings.blocks, settings.hypernetwork.tokens)
            for name, settings in self.models[model].editors.items()
            if isinstance(settings, HyperNetworkEditorSettings) and settings.training.rollout is None
        }
        if self.cache is None or editor not in trained:
            return None
        alike = [name for name, cached in trained.items() if cached == trained[editor]]
        prepared = self.to_prepare()
        runs = sum(len(self.seeds_at(m)) for name in alike for m in prepared.get((model, name), []))
        return alike[0] if runs >= self.cache.min_runs else None

    def ranks(self, model: str) -> int:
        """Return how many processes share a job that trains or measures an editor of a model, each with all of it."""
        settings = self.models[model]
        if self.device == "cpu":
            return settings.workers
        return settings.gpus if settings.device_map is None else 1

    def gpus_of_a_process(self, model: str) -> int:
        """Return over how many GPUs a process spreads a model; 0 on a CPU."""
        settings = self.models[model]
        if self.device == "cpu":
            return 0
        return 1 if settings.device_map is None else settings.gpus

    @property
    def folders(self) -> list[Path]:
        """The folders that hold nothing but what this configuration made."""
        return [Path("results", self.run), Path("data", self.run)]

    def curve_n_edits(self, curve: Curve, editor: str | None = None) -> list[int]:
        """Return the values of m that a curve shows, or those at which it shows an editor; none of an unknown model."""
        model = self.models.get(curve.model)
        if model is None:
            return []
        most = model.at_most.get(editor) if editor else None
        return [m for m in curve.n_edits or model.n_edits if most is None or m <= most]

    def uses(self) -> Iterator[tuple[str, str, str, list[int]]]:
        """Yield where which model and editor are asked for, and the values of m to be measured."""
        for name, figure in self.curves.items():
            for editor in figure.editors:
                yield f"figures.{name}", figure.model, editor, self.curve_n_edits(figure, editor)
        for name, table in self.tables.items():
            where = f"tables.{name}"
            if isinstance(table, Ablation):
                yield from ((where, model, row.editor, [table.n_edits]) for row in table.rows for model in table.models)
            elif isinstance(table, Comparison):
                yield from ((where, table.model, editor, table.n_edits) for editor in table.editors)
            elif isinstance(table, Failures):
                yield where, table.model, table.editor, [table.n_edits]

    def rounds_uses(self) -> Iterator[tuple[str, str, str, list[str]]]:
        """Yield where which model and editor are asked for in rounds, and the names of the rounds."""
        for name, figure in self.figures.items():
            where = f"figures.{name}"
            if isinstance(figure, InRounds):
                yield from ((where, figure.model, editor, self.rounds_of_total(figure)) for editor in figure.editors)
            elif isinstance(figure, Course):
                yield from ((where, figure.model, editor, [figure.rounds]) for editor in figure.editors)
        for name, table in self.tables.items():
            where = f"tables.{name}"
            if isinstance(table, RoundsTable):
                yield from ((where, table.model, row.editor, table.rounds) for row in table.rows)
            elif isinstance(table, RoundsCosts | PublishedRounds):
                yield from ((where, table.model, editor, table.rounds) for editor in table.editors)

    def rounds_of_total(self, figure: InRounds) -> list[str]:
        """Return the names of the rounds that a figure shows; none of an unknown model."""
        model = self.models.get(figure.model)
        return [rounds.name for rounds in model.rounds if rounds.total == figure.total] if model else []

    def rounds(self, model: str, editor: str) -> list[Rounds]:
        """Return the rounds in which an editor is measured on a model, in the model's order."""
        settings = self.models[model]
        wanted = {name for _, used, by, names in self.rounds_uses() if (used, by) == (model, editor) for name in names}
        most, largest = settings.at_most_rounds.get(editor), settings.at_most.get(editor)
        return [
            rounds
            for rounds in settings.rounds
            if rounds.name in wanted
            and (most is None or rounds.n_rounds <= most)
            and (largest is None or rounds.n_edits <= largest)
        ]

    def n_edits(self, model: str, editor: str | None = None) -> list[int]:
        """Return the values of m at which an editor (or any) is measured on a model, in ascending order."""
        sizes: set[int] = set()
        for _, used, by, asked in self.uses():
            if used == model and editor in (None, by):
                sizes |= set(asked)
        return sorted(sizes)

    def cached_tuples(self, model: str, split: str) -> int | None:
        """Return how many tuples of a split, the first, a shared cache holds; None for all of them."""
        if split == "train":
            return None
        sizes = {*self.n_edits(model), *self.models[model].n_edits}
        measured = [self.evaluation.tuples(sizes, editor) for editor in self.editors]
        return None if None in measured else max(number or 0 for number in measured)

    def seeds_at(self, n_edits: int) -> list[int]:
        """Return the seeds with which editors run at a value of m."""
        return self.seeds if self.one_seed_from is None or n_edits < self.one_seed_from else self.seeds[:1]

    def is_compatible(self, model: str, editor: str) -> bool:
        """Return whether an editor can edit a model at all, by how the model answers."""
        settings = self.models[model]
        return settings.task in settings.editors[editor].tasks

    def to_prepare(self) -> dict[tuple[str, str], list[int]]:
        """Return the models and editors that are made ready to edit, by their names: the values of m for each.

        Those that a figure or table shows, at its m; and of each model and each editor that none shows, all that go
        together, at the model's own m.
        """
        shown = {(model, editor) for uses in (self.uses(), self.rounds_uses()) for _, model, editor, _ in uses}
        models, editors = ({pair[place] for pair in shown} for place in (0, 1))
        pairs = [
            (model, editor)
            for editor in self.editors
            for model in self.models
            if (model, editor) in shown
            or ((model not in models or editor not in editors) and self.is_compatible(model, editor))
        ]
        return {pair: self.all_n_edits(*pair) or sorted(self.models[pair[0]].n_edits) for pair in pairs}

    def all_n_edits(self, model: str, editor: str) -> list[int]:
        """Return the values of m at which an editor is measured on a model, at once or in rounds."""
        return sorted({*self.n_edits(model, editor), *(rounds.n_edits for rounds in self.rounds(model, editor))})

    def trained_as(self, model: str, editor: str) -> str:
        """Return the first of the model's editors whose training is that of an editor: they share it."""

        def training(name: str) -> EditorSettings:
            settings = self.models[model].editors[name]
            if not isinstance(settings, HyperNetworkEditorSettings):
                return settings
            return replace(settings, label="all", in_rounds=InRoundsSettings())

        return next(name for name in self.editors if training(name) == training(editor))

    def collected_as(self, model: str, editor: str) -> str:
        """Return the first of the model's editors with an editor's covariance of keys: they share it."""

        def covariance(name: str) -> tuple[object, ...]:
            settings = self.models[model].editors[name]
            return settings.ffn_layers, settings.last_blocks, settings.blocks, settings.covariance

        return next(name for name in self.editors if covariance(name) == covariance(editor))

    def trainings(self) -> dict[tuple[str, str], list[int]]:
        """Return the values of m for which editors are trained, by model and by the editor that gives its name."""
        sizes: dict[tuple[str, str], set[int]] = {}
        for (model, editor), n_edits in self.to_prepare().items():
            if self.models[model].editors[editor].trained:
                sizes.setdefault((model, self.trained_as(model, editor)), set()).update(n_edits)
        return {pair: sorted(n_edits) for pair, n_edits in sizes.items()}

    def tuning_n_edits(self, model: str) -> list[int]:
        """Return the values of m at which hyper-parameters are compared: those that the tuning split can hold."""
        most = self.data.at_most(self.models[model].dataset, "tune")
        return [m for m in sorted(self.models[model].n_edits) if most is None or m <= most]


def cut(values: Sequence[V], length: int) -> list[list[V]]:
    """Return the values in lists of at most ``length``."""
    return [list(values[start : start + length]) for start in range(0, len(values), length)]
