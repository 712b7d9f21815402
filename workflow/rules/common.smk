# The checked configuration, and the helpers that turn it into paths, parameters and messages.

import sys
from dataclasses import asdict
from pathlib import Path

from malmen.config import load as load_config
from malmen.data.sources import registry
from malmen.errors import UserError
from malmen.provenance.code import code_digest

try:
    CONFIG = load_config(config)
except UserError as error:
    sys.exit(str(error))  # one sentence, where an exception would add lines of its own

RESULTS = f"results/{CONFIG.profile}"
DATASETS = f"data/{CONFIG.profile}"
LOGS = f"{RESULTS}/logs"
PUBLISHED = "data/published"
DATASET_FILES = ["train.jsonl", "tune.jsonl", "validation.jsonl", "taught.jsonl", "text.txt"]

# Jobs that run a model ask for the GPU only where the configuration uses one: on a CPU they run side by side.
GPU = int(CONFIG.device == "cuda")


wildcard_constraints:
    model="|".join(CONFIG.models),
    editor="|".join(CONFIG.editors),
    dataset="fever|zsre",
    split="tune|validation",
    seed=r"\d+",
    m=r"\d+",
    sizes=r"\d+(-\d+)*",


def dataset_file(model, name):
    """The file of the data set on which a model is edited."""
    return f"{DATASETS}/{CONFIG.data.source}/{CONFIG.models[model].dataset}/{name}"


def base_model(model):
    """The directory of a model before it is taught: trained here, local, or fetched from the hub."""
    settings = CONFIG.models[model]
    if settings.scratch:
        return f"{RESULTS}/models/{model}/pretrained"
    return str(settings.directory or f"{RESULTS}/models/{model}/fetched")


def edited_model(model):
    """The directory of a model as it is edited."""
    return f"{RESULTS}/models/{model}/taught" if CONFIG.models[model].teaching else base_model(model)


def subject(model):
    """What a job needs to know of a model, apart from its directory."""
    settings = CONFIG.models[model]
    described = {name: getattr(settings, name) for name in ("label", "dataset", "task", "dtype")}
    return {"name": model, **described, "ffn": settings.ffn.patterns()}


def editor_settings(wildcards):
    """The settings of an editor on a model."""
    return asdict(CONFIG.models[wildcards.model].editors[wildcards.editor])


def trained_editor(model, editor, m, seed):
    """The folder of a trained editor."""
    return f"{RESULTS}/editors/{model}/{editor}/m{m}/seed{seed}"


def metrics_files(model, editor, split="validation", sizes=None):
    """The metrics files of an editor on a model: all seeds, all values of m, as many of them a job as configured."""
    sizes = sizes or CONFIG.sizes(model, editor)
    step = CONFIG.evaluation.sizes_per_job
    chunks = ["-".join(map(str, sizes[i : i + step])) for i in range(0, len(sizes), step)]
    return [
        f"{RESULTS}/metrics/{split}/{model}/{editor}/m{chunk}/seed{seed}.json"
        for chunk in chunks
        for seed in CONFIG.seeds
    ]


def trained_editors(wildcards):
    """The trained editor for each m that a job measures; none if the editor is not trained."""
    if not CONFIG.models[wildcards.model].editors[wildcards.editor].trained:
        return []
    folders = [trained_editor(wildcards.model, wildcards.editor, m, wildcards.seed) for m in wildcards.sizes.split("-")]
    return [f"{folder}/{name}" for folder in folders for name in ("editor.safetensors", "training.json")]


def second_moments(wildcards):
    """The second moments that MEMIT needs to edit, as a list; none for other editors."""
    method = CONFIG.models[wildcards.model].editors[wildcards.editor].method
    return [f"{RESULTS}/editors/{wildcards.model}/{wildcards.editor}/second_moments.safetensors"] * (method == "memit")


def suits(model, editor):
    """Whether an editor can edit a model at all: MEMIT edits answers to questions only."""
    settings = CONFIG.models[model]
    return settings.editors[editor].method != "memit" or settings.task == "question_answering"


def curve_files(figure):
    """The metrics files of a scaling curve."""
    settings = getattr(CONFIG.figures, figure)
    return [file for editor in settings.editors for file in metrics_files(settings.model, editor)]


def row_files(row):
    """The metrics files of a row of Table 1: those jobs that measure its m, for all models."""
    m = str(CONFIG.table1.n_edits)
    files = [file for model in CONFIG.table1.models for file in metrics_files(model, row.editor)]
    return [file for file in files if m in Path(file).parent.name.removeprefix("m").split("-")]


def machine():
    """Where jobs run models."""
    return {"device": CONFIG.device, "threads": CONFIG.threads}


def label(wildcards):
    """How a message names an editor on a model."""
    model = CONFIG.models[wildcards.model]
    return f"{model.editors[wildcards.editor].label} on {model.label}"
