"""Parameters of the workflow's rules: what their scripts are given, as JSON holds it.

A parameter that changes makes a rule's jobs run again, so each holds no more than its script depends on.
"""

import sys
from collections.abc import Iterable, Sized
from dataclasses import asdict
from pathlib import Path
from typing import Any

from malmen.config.editors import CODE
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.memit import MemitEditorSettings
from malmen.config.outputs import Ablation, Curve, MovedTable, RoundsCosts, RoundsTable
from malmen.results.run import runs
from malmen.runtime.code_digest import PACKAGE, code_digest, script_digest
from malmen.runtime.text import numbers, printed_name
from malmen.workflow.layout import EditorWildcards, Layout, ModelWildcards

Params = dict[str, Any]
"""A parameter as a script is given it."""

DATA_LABELS = {
    "fever": "FEVER",
    "zsre": "zsRE",
    "zsre_alternative": "zsRE, alternative answers",
    "counterfact": "CounterFact",
    "wikibigedit": "WikiBigEdit",
    "own": "own facts",
}
"""How figures, tables and the report name data sets."""
SYNTHETIC_DATA_LABELS = {
    "fever": "FEVER-like (synthetic)",
    "zsre": "zsRE-like (synthetic)",
    "zsre_alternative": "zsRE-like (synthetic), alternative answers",
}
"""How they name those of the synthetic world."""


PAPERS_MODELS = ("bert-base", "gpt2", "t5-xl", "gpt-j", "bart-base")
"""The paper's models, by their names in the registry."""
OTHER_DATA = {"world": "synthetic data", "realtext": "other data", "files": "own data"}
"""How the sources of data that are not the paper's are called."""


def code_of(scripts: Path, script: str, *modules: str) -> dict[str, str]:
    """Return the digests of a rule's code: of its script, and of the modules of the package that it really uses.

    They alone say which jobs run again when code changes: the profiles do without Snakemake's trigger for it, which
    goes by the date of a script.

    Args:
        scripts: the folder of scripts.
        script: the name of the rule's script.
        *modules: the modules that it imports.
    """
    return {f"scripts/{script}": script_digest(scripts / script), **code_digest(*modules)}


def outside_code(module: str) -> dict[str, str]:
    """Return the digests of an imported module of another package: of its file, or of all files of its package.

    There are none of a module of this package, whose digests :func:`code_of` gives.
    """
    top = module.partition(".")[0]
    file = getattr(sys.modules[top], "__file__", None)
    if top == PACKAGE or file is None:
        return {}
    place = Path(file)
    files = sorted(place.parent.rglob("*.py")) if place.name == "__init__.py" else [place]
    return {one.relative_to(place.parent).as_posix(): script_digest(one) for one in files}


class Parameters:
    """What rules give to their scripts.

    Args:
        layout: the paths of the same configuration.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout, self.config = layout, layout.config

    @property
    def machine(self) -> Params:
        """Where jobs run models."""
        return {"device": self.config.device, "threads": self.config.threads}

    def machine_of_ranks(self, wildcards: ModelWildcards) -> Params:
        """Return the same for a job that ranks share, with their number if there are several."""
        ranks = self.config.ranks(wildcards.model)
        return self.machine if ranks == 1 else {**self.machine, "ranks": ranks}

    # Models

    def model_spec(self, model: str) -> Params:
        """Return what a job needs to know of a model, apart from its directory."""
        settings = self.config.models[model]
        described = {name: getattr(settings, name) for name in ("label", "dataset", "task", "dtype")}
        form = {} if settings.prompt == "plain" else {"prompt": settings.prompt}
        return {"name": model, **described, "ffn": settings.ffn.patterns(), "device_map": settings.device_map, **form}

    def base_model_spec(self, model: str) -> Params:
        """Return the same for a job that takes the model before its fine-tuning: a local one's weights are checked."""
        settings = self.config.models[model]
        return {**self.model_spec(model), "sha256": settings.sha256 if settings.directory else None}

    def edited_model_spec(self, model: str) -> Params:
        """Return the same for a job that takes the model as it is edited."""
        return self.model_spec(model) if self.config.models[model].base_finetuning else self.base_model_spec(model)

    # Editors

    def editor(self, wildcards: EditorWildcards) -> Params:
        """Return the settings of an editor on a model, and the digests of its code if another package holds that."""
        settings = self.config.models[wildcards.model].editors[wildcards.editor]
        code = outside_code(type(settings).__module__)
        return {**asdict(settings), CODE: code} if code else asdict(settings)

    def training_settings(self, wildcards: EditorWildcards) -> Params:
        """Return the settings of an editor that its training depends on, not those of what it does in rounds."""
        return {name: value for name, value in self.editor(wildcards).items() if name != "in_rounds"}

    def rounds(self, wildcards: Any) -> list[Params]:
        """Return the rounds that a job makes."""
        by_name = {rounds.name: rounds for rounds in self.config.models[wildcards.model].rounds}
        return [by_name[name].model_dump() for name in wildcards.rounds.split("-")]

    def cached_settings(self, model: str, editor: str) -> Params:
        """Return the settings of an editor that its cache depends on; those of its training change nothing there."""
        settings = self.config.models[model].editors[editor]
        assert isinstance(settings, HyperNetworkEditorSettings)
        kept = {name: getattr(settings, name) for name in ("label", "ffn_layers", "last_blocks", "blocks")}
        shared = {name: getattr(settings.hypernetwork, name) for name in ("tokens", "batch_size")}
        return {**kept, "hypernetwork": shared}

    def sharing_settings(self, wildcards: EditorWildcards) -> Params | None:
        """Return the settings with which the cache that an editor uses was computed; None if it uses none."""
        shared = self.config.sharing(wildcards.model, wildcards.editor)
        return self.cached_settings(wildcards.model, shared) if shared else None

    def covariance_settings(self, wildcards: EditorWildcards) -> Params:
        """Return the settings of an editor that its covariance of keys depends on, not those of how it edits."""
        settings = self.config.models[wildcards.model].editors[wildcards.editor]
        assert isinstance(settings, MemitEditorSettings)
        kept = {name: getattr(settings, name) for name in ("label", "method", "ffn_layers", "blocks")}
        return {**kept, "memit": {"covariance": asdict(settings.memit.covariance)}}

    def measured_n_edits(self, wildcards: Any) -> list[int]:
        """Return the values of m that a job measures: on the tuples for tuning only those that they can hold."""
        n_edits, held = numbers(wildcards.n_edits), self.config.tuning_n_edits(wildcards.model)
        return [m for m in n_edits if wildcards.split == "validation" or m in held]

    def max_groups(self, wildcards: Any) -> list[int | None]:
        """Return how many groups a job measures at most, for each of its values of m."""
        return [self.config.evaluation.groups(m, wildcards.editor) for m in self.measured_n_edits(wildcards)]

    def kept_answers(self, wildcards: Any) -> int:
        """Return of how many tuples a job keeps answers for the explorer, which shows those of validation alone."""
        return self.config.evaluation.answers if wildcards.split == "validation" else 0

    def label(self, wildcards: EditorWildcards) -> str:
        """Return how a message names an editor on a model."""
        model = self.config.models[wildcards.model]
        return f"{model.editors[wildcards.editor].label} on {model.label}"

    def editor_lines(self) -> list[str]:
        """Return where each editor lies that is made ready, a line each; of MEMIT, its covariance of keys."""
        lines = []
        for (model, editor), folders in self.layout.all_trained_editors().items():
            name = f"{self.config.models[model].editors[editor].label} on {self.config.models[model].label}"
            for folder in map(Path, folders):
                n_edits, seeds = (numbers(part) for part in folder.name.removeprefix("m").split("_seed"))
                lines += [
                    f"{name}, m = {run.n_edits}, seed {run.seed}: {folder / run.name / 'editor.safetensors'}"
                    for run in runs(n_edits, seeds)
                ]
        return [*lines, *(f"Covariance of keys: {file}" for file in self.layout.all_covariances())]

    # Figures and tables

    def curve(self, wildcards: Any) -> Curve:
        """Return what the configuration says of a curve over m."""
        return self.config.curves[wildcards.figure]

    def curve_n_edits(self, wildcards: Any) -> list[int]:
        """Return the values of m of a curve: jobs that measure several may hold others too."""
        return self.config.curve_n_edits(self.curve(wildcards))

    def data_label(self, model: str) -> str:
        """Return the printed name of the data set on which a model is edited."""
        labels = SYNTHETIC_DATA_LABELS if self.config.data.source == "world" else DATA_LABELS
        return labels[self.config.models[model].dataset]

    def data_labels(self, models: Iterable[str]) -> dict[str, str]:
        """Return the printed names of the data sets of some models, by data set."""
        return {self.config.models[model].dataset: self.data_label(model) for model in models}

    def figure_labels(self, wildcards: Any) -> dict[str, str]:
        """Return how the report lists a figure."""
        figure = self.config.figures[wildcards.figure]
        return {"figure": figure.title or printed_name(wildcards.figure), **self.models_and_data([figure.model])}

    def figure_title(self, wildcards: Any) -> str:
        """Return what is printed above a figure: its name, model and data set."""
        figure = self.config.figures[wildcards.figure]
        return self.titled(figure.title or printed_name(wildcards.figure), [figure.model])

    def table_labels(self, wildcards: Any) -> dict[str, str]:
        """Return how the report lists a table."""
        table = self.config.tables[wildcards.table]
        name = table.title or printed_name(wildcards.table)
        return {"table": name, **self.models_and_data(self.table_models(wildcards))}

    def setting(self, models: Iterable[str]) -> Params:
        """Return the :class:`malmen.figures.setting.Setting` of some models, for figures and tables."""
        chosen = {name: self.config.models[name] for name in models}
        differences = ["tiny models"] if any(model.scratch for model in chosen.values()) else []
        if any(not model.scratch and model.registry not in PAPERS_MODELS for model in chosen.values()):
            differences.append("other models")
        if self.config.data.source in OTHER_DATA:
            differences.append(OTHER_DATA[self.config.data.source])
        said = ", ".join(differences)
        taught = [n for n, model in chosen.items() if model.base_finetuning and model.task == "question_answering"]
        note = f"{said[0].upper()}{said[1:]}: not the paper's setting." if said else ""
        return {"note": note, "taught": taught, "device": self.config.device}

    def figure_setting(self, wildcards: Any) -> Params:
        """Return the same for a figure."""
        return self.setting([self.config.figures[wildcards.figure].model])

    def table_setting(self, wildcards: Any) -> Params:
        """Return the same for a table."""
        return self.setting(self.table_models(wildcards))

    def table_models(self, wildcards: Any) -> list[str]:
        """Return the models of a table."""
        table = self.config.tables[wildcards.table]
        return table.models if isinstance(table, Ablation) else [table.model]

    def models_and_data(self, models: Iterable[str]) -> dict[str, str]:
        """Return the printed names of models and of their data sets."""
        models = list(models)
        labels = [self.config.models[model].label for model in models]
        return {"model": ", ".join(labels), "data": ", ".join(self.data_labels(models).values())}

    def results(self) -> dict[str, dict[str, str]]:
        """Return the stems of the files of all figures and tables, each with its title, by kind."""
        config, folder = self.config, self.layout.results
        figures = {
            f"{folder}/figures/{name}": self.titled(figure.title or printed_name(name), [figure.model])
            for name, figure in config.figures.items()
        }
        tables = {
            f"{folder}/tables/{name}": self.titled(
                table.title or printed_name(name), table.models if isinstance(table, Ablation) else [table.model]
            )
            for name, table in config.tables.items()
        }
        return {"figures": figures, "tables": {**tables, f"{folder}/tables/compute": "Time and memory"}}

    def shows_explorer(self) -> bool:
        """Return whether other pages link to the explorer: it lies beside them wherever they go."""
        return not set(self.layout.explorer()) <= set(self.layout.quoting_files())

    def quoting(self) -> list[str]:
        """Return the stems of the tables that quote records of a real data set."""
        return [f"{self.layout.results}/tables/{name}" for name in self.layout.quoting_tables()]

    def titled(self, name: str, models: Iterable[str]) -> str:
        """Return the title of a figure or table: its name, models and data sets."""
        return "{name}: {model}, {data}".format_map({"name": name, **self.models_and_data(models)})

    def explored(self) -> Params:
        """Return what the explorer is told of the run, beside the files that it reads."""
        models = {model: self.data_label(model) for model in self.config.models if self.config.n_edits(model)}
        return {"run": self.config.run, "note": self.setting(models)["note"], "models": models}

    def links(self) -> dict[str, str]:
        """Return the paths of all other pages and results from the summary, by printed name."""
        found = {"all results on one page": "index.html", "where every number comes from": "lineage.html"}
        if self.shows_explorer():
            found["curves and answers to look through"] = "explorer.html"
        if self.layout.all_rounds():
            found["claims about editing in rounds"] = "after_malmen.html"
        suffixes = {"figures": "png", "tables": "md"}
        for kind, items in self.results().items():
            for stem, title in items.items():
                if stem in self.quoting():
                    continue
                found[title.partition(":")[0]] = f"{kind}/{Path(stem).name}.{suffixes[kind]}"
        return found

    def memory_editors(self, wildcards: Any) -> dict[str, Params]:
        """Return the settings of the editors whose memory is measured, by computation."""
        figure = self.config.memory_figures[wildcards.figure]
        editors = self.config.models[figure.model].editors
        return {"separated": asdict(editors[figure.separated]), "concatenated": asdict(editors[figure.concatenated])}

    def memory_labels(self, wildcards: Any) -> dict[str, str]:
        """Return what the two computations are called: as in the paper, "MALMEN" and "MEND-style"."""
        figure = self.config.memory_figures[wildcards.figure]
        editors = self.config.models[figure.model].editors
        style = f"{editors[figure.concatenated].label}-style"
        return {"separated": editors[figure.separated].label, "concatenated": style}

    def ablation_rows(self, table: Ablation) -> list[Params]:
        """Return the rows of an ablation: with the metrics files of all models and, if it has times, costs by model."""
        models, n_edits, layout = table.models, [table.n_edits], self.layout
        return [
            {
                "variant": row.variant,
                "label": row.label,
                "metrics": [file for model in models for file in layout.metrics_files(model, row.editor, n_edits)],
                "costs": {model: layout.cost_files(model, row.editor, n_edits) for model in models if table.times},
            }
            for row in table.rows
        ]

    def rounds_rows(self, table: RoundsTable) -> list[Params]:
        """Return the rows of a table of rounds, with their rounds files."""
        return [
            {
                "variant": row.variant,
                "label": row.label,
                "files": self.layout.rounds_files(table.model, row.editor, table.rounds),
            }
            for row in table.rows
        ]

    def priced_in_rounds(self, table: RoundsCosts) -> list[Params]:
        """Return the editors of a table of costs in rounds, with the files of what they cost."""
        sizes = [int(name.partition("x")[2]) for name in table.rounds]
        editors = self.config.models[table.model].editors
        return [
            {
                "editor": editor,
                "label": editors[editor].label,
                "rounds": self.layout.rounds_cost_files(table.model, editor, table.rounds),
                "training": self.layout.cost_files(table.model, editor, sizes)["training"],
                "preparation": self.layout.preparation_costs(table.model, editor),
            }
            for editor in table.editors
        ]

    def moved(self, table: MovedTable) -> list[Params]:
        """Return the editors of a table of how far training moved them, with the folders of their trainings."""
        editors = self.config.models[table.model].editors
        return [
            {
                "editor": editor,
                "label": editors[editor].label,
                "seeds": self.config.seeds_at(table.n_edits),
                "folders": self.layout.trained_editors(table.model, editor, [table.n_edits]),
            }
            for editor in table.editors
        ]

    def rounds_costs_files(self, table: RoundsCosts) -> list[str]:
        """Return all files of such a table."""
        kinds = ("rounds", "training", "preparation")
        return [file for editor in self.priced_in_rounds(table) for kind in kinds for file in editor[kind]]

    def variants(self) -> dict[str, str]:
        """Return the editors behind the variants of all ablations; of a variant of several, that of the first."""
        rows = [row for table in self.config.tables_of(Ablation).values() for row in table.rows]
        return {row.variant: row.editor for row in reversed(rows)}

    def priced_editors(self) -> list[Params]:
        """Return all editors that are measured, with the files of what they cost."""
        return [
            {
                "model": model,
                "model_label": settings.label,
                "editor": editor,
                "editor_label": settings.editors[editor].label,
                **self.layout.cost_files(model, editor),
            }
            for model, settings in self.config.models.items()
            for editor in settings.editors
            if self.layout.jobs(model, editor)
        ]


def up_to_date(what: str, files: Sized) -> str:
    """Return a target's message: that its files are there, or that the configuration asks for none."""
    return f"All {what} are up to date" if files else f"The configuration describes no {what}; nothing is made"
