"""Paths of the workflow: which files a rule reads and makes, from the configuration and the rule's wildcards alone.

Rules call these methods; neither Snakemake nor torch is imported. A job of an editor is named ``m4-16_seed0-1``: the
values of m that it takes, and its seeds.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol

from malmen.config.base import Corpus, Dataset
from malmen.config.configuration import Config, cut
from malmen.config.data import DATASETS
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.outputs import Ablation, Comparison, Course, Failures, InRounds, PublishedRounds, RoundsTable
from malmen.config.rounds import Rounds
from malmen.data.rebuild import corpus_of
from malmen.results.answers import SUFFIX
from malmen.runtime.text import joined, numbers

PUBLISHED = "data/published"
DATASET_FILES = ("train.jsonl", "tune.jsonl", "validation.jsonl", "finetune.jsonl", "text.txt")
"""The files of every data set, whatever its source."""
WORLD_DATASETS = DATASETS["world"]
"""The data sets of the synthetic world."""


class ModelWildcards(Protocol):
    """The wildcards of a rule that runs a model."""

    @property
    def model(self) -> str:
        """The model's name in the configuration."""


class EditorWildcards(ModelWildcards, Protocol):
    """The wildcards of a rule about an editor on a model."""

    @property
    def editor(self) -> str:
        """The editor's name in the configuration."""


class JobWildcards(EditorWildcards, Protocol):
    """The wildcards of a rule that trains or measures an editor, for several m and seeds at once."""

    @property
    def n_edits(self) -> str:
        """The values of m, joined by hyphens."""

    @property
    def seeds(self) -> str:
        """The seeds, joined by hyphens."""


class RoundsWildcards(EditorWildcards, Protocol):
    """The wildcards of a rule that edits in rounds."""

    @property
    def rounds(self) -> str:
        """The names of the rounds, joined by hyphens: ``1x512-8x64``."""

    @property
    def seeds(self) -> str:
        """The seeds, joined by hyphens."""


class RunWildcards(EditorWildcards, Protocol):
    """The wildcards of a rule about one run of an editor."""

    @property
    def n_edits(self) -> str:
        """The value of m."""

    @property
    def seed(self) -> str:
        """The seed."""


def n_edits_in(file: str) -> list[int]:
    """Return the values of m of a metrics file, by its name."""
    return numbers(Path(file).stem.removeprefix("m").partition("_")[0])


def one_of(names: Iterable[str]) -> str:
    """Return a regular expression for these names; one that matches nothing if there are none."""
    return "|".join(names) or "(?!)"


class Layout:
    """Where a configuration's files are, relative to the project's root.

    Args:
        config: the configuration.

    Attributes:
        results: the folder of models, editors, metrics, figures and tables.
        data: the folder of data sets.
        logs: the folder of the jobs' logs.
        states: where jobs save what they need to go on after an interruption: Snakemake removes outputs before it
            makes them again.
        rebuilt: where the paper's data are made again.
        steps: where the steps of that are, with the wildcard ``corpus``.
        parts: the parts into which back-translation is cut, as the wildcard ``part`` names them.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.results = f"results/{config.run}"
        self.data = f"data/{config.run}"
        self.logs = f"{self.results}/logs"
        self.states = f"{self.results}/state"
        self.rebuilt = f"{self.data}/rebuild"
        self.steps = f"{self.rebuilt}/steps/{{corpus}}"
        self.parts = [f"{i}-of-{config.data.rebuild.parts}" for i in range(config.data.rebuild.parts)]

    # Data sets and models

    def dataset_file(self, model: str, name: str) -> str:
        """Return a file of the data set on which a model is edited."""
        return f"{self.data}/{self.config.data.source}/{self.config.models[model].dataset}/{name}"

    def base_model(self, model: str) -> str:
        """Return the directory of a model before its fine-tuning: trained here, local, or fetched from the hub."""
        settings = self.config.models[model]
        if settings.scratch:
            return f"{self.results}/models/{model}/pretrained"
        return str(settings.directory or f"{self.results}/models/{model}/fetched")

    def edited_model(self, model: str) -> str:
        """Return the directory of a model as it is edited."""
        tuned = self.config.models[model].base_finetuning
        return f"{self.results}/models/{model}/finetuned" if tuned else self.base_model(model)

    # Editors

    def job_names(self, n_edits: Sequence[int]) -> list[str]:
        """Return the names of the jobs that take these values of m, in ascending order, and their seeds."""
        jobs = self.config.jobs
        return [
            f"m{joined(some)}_seed{joined(of_a_job)}"
            for seeds, alike in groupby(n_edits, key=self.config.seeds_at)
            for some in cut(list(alike), jobs.n_edits_per_job)
            for of_a_job in cut(seeds, jobs.seeds_per_job)
        ]

    def jobs(self, model: str, editor: str, n_edits: Iterable[int] = ()) -> list[str]:
        """Return the names of an editor's jobs on a model: all, or those that take one of some values of m."""
        names, wanted = self.job_names(self.config.n_edits(model, editor)), set(n_edits)
        return [name for name in names if not wanted or wanted & set(n_edits_in(name))]

    def trained_editors(self, model: str, editor: str, n_edits: Iterable[int] = ()) -> list[str]:
        """Return the folders of an editor's trainings on a model (as :meth:`jobs`); none if it is not trained."""
        wanted = set(n_edits) or set(self.config.all_n_edits(model, editor))
        return [folder for folder in self.trainings(model, editor) if wanted & set(n_edits_in(folder))]

    def trainings(self, model: str, editor: str) -> list[str]:
        """Return the folders of all trainings that an editor on a model takes, or shares; none if it is not trained."""
        if not self.config.models[model].editors[editor].trained:
            return []
        name = self.config.trained_as(model, editor)
        n_edits = self.config.trainings().get((model, name), [])
        return [f"{self.results}/editors/{model}/{name}/{job}" for job in self.job_names(n_edits)]

    def metrics_files(self, model: str, editor: str, n_edits: Iterable[int] = ()) -> list[str]:
        """Return the metrics files of an editor on a model (as :meth:`jobs`)."""
        folder = f"{self.results}/metrics/validation/{model}/{editor}"
        return [f"{folder}/{job}.json" for job in self.jobs(model, editor, n_edits)]

    def cost_files(self, model: str, editor: str, n_edits: Iterable[int] = ()) -> dict[str, list[str]]:
        """Return the files of what training an editor on a model, and editing with it, cost (as :meth:`jobs`)."""
        n_edits = list(n_edits)
        metrics = self.metrics_files(model, editor, n_edits)
        return {
            "training": [f"{folder}.cost.json" for folder in self.trained_editors(model, editor, n_edits)],
            "editing": [file.removesuffix(".json") + ".cost.json" for file in metrics],
        }

    def answers_files(self, model: str, editor: str) -> list[str]:
        """Return the files of the answers that the runs of an editor on a model keep; none if they keep none."""
        if not self.config.evaluation.answers:
            return []
        return [f"{file.removesuffix('.json')}{SUFFIX}" for file in self.metrics_files(model, editor)]

    def training_of(self, wildcards: JobWildcards) -> list[str]:
        """Return the folders of the trained editors that a job measures; none if the editor is not trained."""
        return self.trained_for(wildcards, numbers(wildcards.n_edits), numbers(wildcards.seeds))

    def trained_for(self, wildcards: EditorWildcards, n_edits: Sequence[int], seeds: Sequence[int]) -> list[str]:
        """Return the folders of the editors that are trained for some m and seeds; none if the editor is not."""
        folders = self.trainings(wildcards.model, wildcards.editor)
        return [
            folder
            for folder in folders
            if set(n_edits) & set(n_edits_in(folder)) and set(seeds) & set(numbers(folder.rpartition("_seed")[2]))
        ]

    def training_of_run(self, wildcards: RunWildcards) -> list[str]:
        """Return the folder of trained editors that holds those of a run; none if the editor is not trained."""
        return self.trained_for(wildcards, [int(wildcards.n_edits)], [int(wildcards.seed)])

    # Rounds

    def rounds_job_names(self, rounds: Sequence[Rounds]) -> list[str]:
        """Return the names of the jobs that edit in some rounds, and their seeds: ``1x512-8x64_seed0-1``."""
        jobs = self.config.jobs
        return [
            f"{'-'.join(one.name for one in some)}_seed{joined(of_a_job)}"
            for seeds, alike in groupby(rounds, key=lambda one: self.config.seeds_at(one.n_edits))
            for some in cut(list(alike), jobs.n_edits_per_job)
            for of_a_job in cut(seeds, jobs.seeds_per_job)
        ]

    def rounds_files(self, model: str, editor: str, names: Iterable[str] = ()) -> list[str]:
        """Return the rounds files of an editor on a model: all, or those that hold one of some rounds by name."""
        folder, wanted = f"{self.results}/rounds/{model}/{editor}", set(names)
        jobs = self.rounds_job_names(self.config.rounds(model, editor))
        return [f"{folder}/{job}.json" for job in jobs if not wanted or wanted & set(job.partition("_")[0].split("-"))]

    def rounds_shown(self, shown: InRounds | Course | RoundsTable | PublishedRounds) -> list[str]:
        """Return the rounds files of a figure or a table."""
        if isinstance(shown, InRounds):
            editors, names = shown.editors, self.config.rounds_of_total(shown)
        elif isinstance(shown, Course):
            editors, names = shown.editors, [shown.rounds]
        elif isinstance(shown, PublishedRounds):
            editors, names = shown.editors, shown.rounds
        else:
            editors, names = [row.editor for row in shown.rows], shown.rounds
        return [file for editor in dict.fromkeys(editors) for file in self.rounds_files(shown.model, editor, names)]

    def after_malmen(self, suffix: str) -> list[str]:
        """Return a file of the page of claims about editing in rounds; none if nothing is edited in rounds."""
        return [f"{self.results}/after_malmen.{suffix}"] if self.all_rounds() else []

    def rounds_cost_files(self, model: str, editor: str, names: Iterable[str] = ()) -> list[str]:
        """Return the files of what editing in rounds cost (as :meth:`rounds_files`)."""
        return [f"{file.removesuffix('.json')}.cost.json" for file in self.rounds_files(model, editor, names)]

    def preparation_costs(self, model: str, editor: str) -> list[str]:
        """Return the files of what an editor's covariance of keys cost; none for editors that need none."""
        return [f"{file.removesuffix('.safetensors')}.cost.json" for file in self.covariance_of(model, editor)]

    def all_rounds(self) -> list[str]:
        """Return the rounds files of everything that is edited in rounds."""
        pairs = ((model, editor) for model in self.config.models for editor in self.config.editors)
        return [file for model, editor in pairs for file in self.rounds_files(model, editor)]

    def trained_for_rounds(self, wildcards: RoundsWildcards) -> list[str]:
        """Return the folders of the trained editors that a job edits with in rounds; none if it is not trained."""
        n_edits = [int(name.partition("x")[2]) for name in wildcards.rounds.split("-")]
        return self.trained_for(wildcards, n_edits, numbers(wildcards.seeds))

    def retraining_tuples(self, wildcards: EditorWildcards) -> list[str]:
        """Return the training tuples of an editor that is trained anew in rounds; none for others."""
        settings = self.config.models[wildcards.model].editors[wildcards.editor]
        again = isinstance(settings, HyperNetworkEditorSettings) and settings.in_rounds.retrain_every
        return [self.dataset_file(wildcards.model, "train.jsonl")] if again else []

    def caches(self, model: str, editor: str, split: str) -> list[str]:
        """Return the folder of what an editor's runs on the tuples of a split share; none if they share nothing."""
        shared = self.config.sharing(model, editor)
        return [f"{self.results}/cache/{model}/{shared}/{split}"] if shared else []

    def all_caches(self) -> list[str]:
        """Return the folders of everything that trained editors share."""
        folders = {
            folder
            for model in self.config.models
            for editor in self.config.editors
            if self.trained_editors(model, editor)
            for split in ("train", "validation")
            for folder in self.caches(model, editor, split)
        }
        return sorted(folders)

    def key_covariance(self, wildcards: EditorWildcards) -> list[str]:
        """Return the covariance of keys that MEMIT needs to edit; none for other editors."""
        return self.covariance_of(wildcards.model, wildcards.editor)

    def covariance_of(self, model: str, editor: str) -> list[str]:
        """Return the same for an editor on a model; editors with the same layers and text share it."""
        if self.config.models[model].editors[editor].covariance is None:
            return []
        name = self.config.collected_as(model, editor)
        return [f"{self.results}/editors/{model}/{name}/key_covariance.safetensors"]

    def all_trained_editors(self) -> dict[tuple[str, str], list[str]]:
        """Return the folders of the trainings of all editors that are made ready, by model and editor."""
        return {pair: self.trainings(*pair) for pair in self.config.trainings()}

    def all_covariances(self) -> list[str]:
        """Return the covariances of keys of all MEMIT editors that are made ready."""
        files = (file for pair in self.config.to_prepare() for file in self.covariance_of(*pair))
        return list(dict.fromkeys(files))

    def all_editors(self) -> list[str]:
        """Return all that editors need before they edit: trained hyper-networks, and MEMIT's covariances of keys."""
        trained = [folder for folders in self.all_trained_editors().values() for folder in folders]
        return [*trained, *self.all_covariances()]

    def covariance_text(self, wildcards: EditorWildcards) -> list[str]:
        """Return the text for the covariance: a configured file, or that of the data set; none if it is streamed."""
        settings = self.config.models[wildcards.model].editors[wildcards.editor].covariance
        assert settings
        if settings.source == "wikipedia":
            return []
        return [settings.path or self.dataset_file(wildcards.model, "text.txt")]

    def tuning_files(self) -> list[str]:
        """Return the metrics files of all editors on the tuples held out for tuning."""
        return [
            f"{self.results}/metrics/tune/{model}/{editor}/{job}.json"
            for (model, editor), n_edits in self.config.to_prepare().items()
            for job in self.job_names(n_edits)
            if set(self.config.tuning_n_edits(model)) & set(n_edits_in(job))
        ]

    # Figures and tables

    def curve_files(self, figure: str) -> list[str]:
        """Return the metrics files of a curve over m."""
        settings = self.config.curves[figure]
        n_edits = self.config.curve_n_edits(settings)
        return [file for editor in settings.editors for file in self.metrics_files(settings.model, editor, n_edits)]

    def memory_file(self, figure: str) -> str:
        """Return the file of the measurements of a memory figure."""
        return f"{self.results}/memory/{figure}.cost.json"

    def memory_files(self) -> list[str]:
        """Return the files of all memory measurements."""
        return [self.memory_file(figure) for figure in self.config.memory_figures]

    def published(self, table: Ablation | Comparison | PublishedRounds) -> list[str]:
        """Return the file of the published numbers that a table shows; none if it shows none."""
        return [f"{PUBLISHED}/{table.published}.csv"] if table.published else []

    def ablation_files(self, table: Ablation) -> list[str]:
        """Return all files of an ablation: metrics of its rows and, if it shows times, then their costs."""
        pairs = [(model, row.editor) for row in table.rows for model in table.models]
        n_edits = [table.n_edits]
        files = [file for model, editor in pairs for file in self.metrics_files(model, editor, n_edits)]
        costs = [self.cost_files(model, editor, n_edits) for model, editor in pairs if table.times]
        return [*files, *(file for by_kind in costs for kind in by_kind.values() for file in kind)]

    def comparison_files(self, table: Comparison) -> list[str]:
        """Return the metrics files of a comparison."""
        editors = table.editors
        return [file for editor in editors for file in self.metrics_files(table.model, editor, table.n_edits)]

    def failures_file(self, table: Failures) -> str:
        """Return the file of the failures that a table shows."""
        run = f"m{table.n_edits}_seed{self.config.seeds[0]}"
        return f"{self.results}/failures/{table.model}/{table.editor}/{run}.json"

    def quoting_tables(self) -> list[str]:
        """Return the names of the tables that quote records of a real data set; the synthetic world is our own."""
        if self.config.data.source == "world":
            return []
        return [name for name, table in self.config.tables.items() if isinstance(table, Failures)]

    def quoting_files(self) -> list[str]:
        """Return the files that quote records of a real data set, other people's text, which git does not hold."""
        if self.config.data.source == "world":
            return []
        tables = {name: self.config.tables[name] for name in self.quoting_tables()}
        failures = [self.failures_file(table) for table in tables.values() if isinstance(table, Failures)]
        pages = [f"{self.results}/tables/{name}.{suffix}" for name in tables for suffix in ("md", "html", "tex", "csv")]
        answers = [*self.all_answers(), *self.explorer()] if self.all_answers() else []
        return [*dict.fromkeys(failures), *pages, *answers]

    def all_metrics(self) -> list[str]:
        """Return the metrics files of everything that is measured."""
        pairs = ((model, editor) for model in self.config.models for editor in self.config.editors)
        return [file for model, editor in pairs for file in self.metrics_files(model, editor)]

    def all_answers(self) -> list[str]:
        """Return the files of the answers that are kept of everything that is measured."""
        pairs = ((model, editor) for model in self.config.models for editor in self.config.editors)
        return [file for model, editor in pairs for file in self.answers_files(model, editor)]

    def explorer(self, suffix: str = "html") -> list[str]:
        """Return the page on which a reader looks through the run, or a file beside it; none if nothing is measured."""
        return [f"{self.results}/explorer.{suffix}"] if self.all_metrics() else []

    def all_costs(self) -> list[str]:
        """Return the files of what everything that is measured cost."""
        pairs = ((model, editor) for model in self.config.models for editor in self.config.editors)
        return [file for pair in pairs for files in self.cost_files(*pair).values() for file in files]

    # The paper's data, made again

    def raw_files(self, names: Sequence[str]) -> list[str]:
        """Return the paths of upstream files."""
        return [f"data/raw/{name}" for name in names]

    def translator(self, direction: str) -> str:
        """Return the directory of a translation model: a local one, or that of the fetched one."""
        configured: str = getattr(self.config.data.rebuild.translation, direction)
        return configured if Path(configured).is_dir() else f"{self.rebuilt}/translators/{direction}"

    def filtering_model(self, corpus: Corpus) -> str:
        """Return the model that filters the rephrasings of a corpus."""
        return self.config.data.rebuild.filter[corpus]

    def steps_of(self, dataset: Dataset) -> dict[str, list[str]]:
        """Return the outputs of the steps that make a data set's tuples, by step; those of a step's parts in order."""
        corpus = corpus_of(dataset)
        names = {"originals": ["originals"], "translated": [f"translated/{part}" for part in self.parts]}
        if corpus in self.config.data.rebuild.filter:
            names["filtered"] = [f"filtered/{part}" for part in self.parts]
        if dataset == "zsre_alternative":
            names["alternatives"] = ["alternatives"]
        folder = self.steps.format(corpus=corpus)
        return {step: [f"{folder}/{name}.jsonl" for name in files] for step, files in names.items()}

    def reports_of(self, dataset: Dataset) -> dict[str, list[str]]:
        """Return the reports of these steps, in the same form."""
        steps = self.steps_of(dataset)
        return {step: [str(Path(file).with_suffix(".report.json")) for file in files] for step, files in steps.items()}
