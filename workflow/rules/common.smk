# The checked configuration, and the helpers that turn it into paths, parameters and messages.

import os
import sys
from dataclasses import asdict
from pathlib import Path

from malmen.config.load import load as load_config
from malmen.data.rebuild import corpus_of
from malmen.data.world import TEXTS as WORLD_TEXTS
from malmen.config.upstream_files import upstream_files
from malmen.errors import UserError
from malmen.plan.machine import Capacity, missing_gpu
from malmen.plan.estimate import Plan, models_to_pin, requested
from malmen.runtime.code_digest import code_digest, script_digest
from malmen.runtime.files import sha256


def configurations():
    """What the configuration was read from."""
    files = [os.path.relpath(file) for file in workflow.overwrite_configfiles] or ["config/demo.yaml"]
    return " and ".join([*files, *["--config"] * bool(workflow.config_settings.config)])


try:
    CONFIG = load_config(config, f"Configuration ({configurations()})")
except UserError as error:
    sys.exit(str(error))  # one sentence, where an exception would add lines of its own

RESULTS = f"results/{CONFIG.profile}"
DATASETS = f"data/{CONFIG.profile}"
LOGS = f"{RESULTS}/logs"
# Where jobs save what they need to go on after an interruption: Snakemake removes outputs before it makes them again.
STATES = f"{RESULTS}/state"
PUBLISHED = "data/published"
WORLD_DATASETS = ["fever", "zsre", "zsre_alternative"]
DATASET_FILES = ["train.jsonl", "tune.jsonl", "validation.jsonl", "taught.jsonl", "text.txt"]

# Where the paper's data are made anew, and the parts into which that is cut.
REBUILT = f"{DATASETS}/rebuild"
STEPS = f"{REBUILT}/steps/{{corpus}}"
PARTS = [f"{i}-of-{CONFIG.data.rebuild.parts}" for i in range(CONFIG.data.rebuild.parts)]

PLAN = Plan(CONFIG)

# Jobs that run a model ask for the GPU only where the configuration uses one: on a CPU they run side by side.
GPU = int(CONFIG.device == "cuda")


def code_of(script, *modules):
    """The digests of the code of a rule: of its script, and of the modules of the package that it really uses.

    They alone say what re-runs when code changes: the profiles do without Snakemake's trigger for it, which goes by the
    date of a script.
    """
    path = Path(workflow.basedir, "workflow", "scripts", script)
    return {f"scripts/{script}": script_digest(path), **code_digest(*modules)}


def one_of(names):
    """A regular expression for these names; one that matches nothing if there are none."""
    return "|".join(names) or "(?!)"


SCALING = [name for name in CONFIG.figures.curves if name != "figure8"]


wildcard_constraints:
    figure=one_of(CONFIG.figures.names),
    model="|".join(CONFIG.models),
    editor="|".join(CONFIG.editors),
    dataset="fever|zsre|zsre_alternative",
    split="tune|validation",
    corpus="fever|zsre",
    part=r"\d+-of-\d+",
    direction="forward|backward",
    sizes=r"\d+(-\d+)*",
    seeds=r"\d+(-\d+)*",
    n_edits=r"\d+",
    seed=r"\d+",


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


def model_spec(model):
    """What a job needs to know of a model, apart from its directory."""
    settings = CONFIG.models[model]
    described = {name: getattr(settings, name) for name in ("label", "dataset", "task", "dtype")}
    return {"name": model, **described, "ffn": settings.ffn.patterns(), "device_map": settings.device_map}


def gpus_for(model):
    """How many GPUs a model takes."""
    return GPU * CONFIG.models[model].gpus


def gpus(wildcards):
    """How many GPUs a job with a model asks for."""
    return gpus_for(wildcards.model)


def base_model_spec(model):
    """The same for a job that takes the model as it is before it is taught: a local one's weights are checked."""
    settings = CONFIG.models[model]
    return {**model_spec(model), "sha256": settings.sha256 if settings.directory else None}


def edited_model_spec(model):
    """The same for a job that takes the model as it is edited."""
    return model_spec(model) if CONFIG.models[model].teaching else base_model_spec(model)


def editor_settings(wildcards):
    """The settings of an editor on a model."""
    return asdict(CONFIG.models[wildcards.model].editors[wildcards.editor])


def joined(values):
    """The values, joined by hyphens."""
    return "-".join(map(str, values))


def numbers(text):
    """What joined() joined."""
    return [int(number) for number in text.split("-")]


def jobs(model, editor, n_edits=()):
    """The jobs of an editor on a model, by the values of m and the seeds that each takes; all, or those of some m."""
    return [
        f"m{joined(sizes)}_seed{joined(seeds)}"
        for sizes, seeds in CONFIG.batches(model, editor)
        if not n_edits or set(n_edits) & set(sizes)
    ]


def trained_editors(model, editor, n_edits=()):
    """The folders of an editor's trainings on a model, all or those of some m; none if it is not trained."""
    if CONFIG.models[model].editors[editor].method != "hypernetwork":
        return []
    return [f"{RESULTS}/editors/{model}/{editor}/{job}" for job in jobs(model, editor, n_edits)]


def metrics_files(model, editor, split="validation", n_edits=()):
    """The metrics files of an editor on a model: all seeds, and all values of m or those jobs that measure some."""
    return [f"{RESULTS}/metrics/{split}/{model}/{editor}/{job}.json" for job in jobs(model, editor, n_edits)]


def training_of(wildcards):
    """The folder of the trained editors that a job measures; none if the editor is not trained."""
    folder = "m{sizes}_seed{seeds}".format_map(wildcards)
    return [path for path in trained_editors(wildcards.model, wildcards.editor) if Path(path).name == folder]


def measured_sizes(wildcards):
    """The values of m that a job measures: on the tuples for tuning only those that they can hold."""
    sizes = numbers(wildcards.sizes)
    return [m for m in sizes if wildcards.split == "validation" or m in CONFIG.tuning_sizes(wildcards.model)]


def shared_folder(model, editor, split):
    """The folder of what runs on the tuples of a split share, as a list; none if they share nothing."""
    shared = CONFIG.sharing(model, editor)
    return [f"{RESULTS}/cache/{model}/{shared}/{split}"] if shared else []


def cache_of(wildcards, split):
    """That of a job.

    Ancient, so that finished runs stay finished when it is made once more: whatever changes it they depend on themselves.
    """
    return [ancient(folder) for folder in shared_folder(wildcards.model, wildcards.editor, split)]


def sharing_settings(wildcards):
    """The settings with which what a run shares with others was computed; none if it shares nothing."""
    editor = CONFIG.sharing(wildcards.model, wildcards.editor)
    return cached_settings(wildcards.model, editor) if editor else None


def cached_settings(model, editor):
    """The settings of an editor that what it shares with others depends on: how it is trained makes nothing new necessary."""
    settings = CONFIG.models[model].editors[editor]
    kept = {name: getattr(settings, name) for name in ("label", "ffn_layers", "last_blocks", "blocks")}
    shared = {name: getattr(settings.hypernetwork, name) for name in ("tokens", "batch_size")}
    return {**kept, "hypernetwork": shared}


def second_moments(wildcards):
    """The second moments that MEMIT needs to edit, as a list; none for other editors."""
    method = CONFIG.models[wildcards.model].editors[wildcards.editor].method
    return [f"{RESULTS}/editors/{wildcards.model}/{wildcards.editor}/second_moments.safetensors"] * (method == "memit")


def statistics_text(wildcards):
    """The text on which second moments are estimated, as a list: the configured file, the data set's; none if streamed."""
    settings = CONFIG.models[wildcards.model].editors[wildcards.editor].memit.covariance
    if settings.source == "wikipedia":
        return []
    return [settings.path or dataset_file(wildcards.model, "text.txt")]


def statistics_settings(wildcards):
    """The settings of an editor that its second moments depend on: how it edits makes no new ones necessary."""
    settings = CONFIG.models[wildcards.model].editors[wildcards.editor]
    kept = {name: getattr(settings, name) for name in ("label", "method", "ffn_layers", "blocks")}
    return {**kept, "memit": {"covariance": asdict(settings.memit.covariance)}}


def suits(model, editor):
    """Whether an editor can edit a model at all: MEMIT edits answers to questions only."""
    settings = CONFIG.models[model]
    return settings.editors[editor].method != "memit" or settings.task == "question_answering"


def curve_files(figure):
    """The metrics files of a curve over m."""
    settings = CONFIG.figures.curves[figure]
    n_edits = settings.n_edits or CONFIG.models[settings.model].n_edits
    return [file for editor in settings.editors for file in metrics_files(settings.model, editor, n_edits=n_edits)]


def curve_model(wildcards):
    """The model of a curve over m."""
    return CONFIG.models[CONFIG.figures.curves[wildcards.figure].model]


def curve_sizes(wildcards):
    """The values of m of a curve: jobs that measure several may hold others too."""
    return CONFIG.figures.curves[wildcards.figure].n_edits or curve_model(wildcards).n_edits


def figure_labels(figure, model):
    """How the report lists a figure."""
    settings = CONFIG.models[model]
    data = {"fever": "FEVER", "zsre": "zsRE"}.get(settings.dataset, settings.dataset)
    return {"figure": figure.replace("figure", "Figure "), "model": settings.label, "data": data}


def curve_labels(wildcards):
    """How the report lists a curve over m."""
    return figure_labels(wildcards.figure, CONFIG.figures.curves[wildcards.figure].model)


def priced_editors():
    """All editors that are measured, with the files of what they cost."""
    return [
        {
            "model": model,
            "model_label": settings.label,
            "editor": editor,
            "editor_label": settings.editors[editor].label,
            **cost_files(model, editor),
        }
        for model, settings in CONFIG.models.items()
        for editor in settings.editors
        if jobs(model, editor)
    ]


def memory_files():
    """The file of the memory measurements; none if they are not made."""
    figure = CONFIG.figures.figure9
    return [f"{RESULTS}/memory/{figure.model}.cost.json"] if figure else []


def memory_editors(_):
    """The settings of the editors whose memory is measured, by computation."""
    figure = CONFIG.figures.figure9
    editors = CONFIG.models[figure.model].editors
    return {"separated": asdict(editors[figure.separated]), "concatenated": asdict(editors[figure.concatenated])}


def memory_labels(_):
    """What the two computations are called: as in the paper, "MALMEN" and "MEND-style"."""
    labels = {name: editor["label"] for name, editor in memory_editors(_).items()}
    return {**labels, "concatenated": f"{labels['concatenated']}-style"}


def sizes_of(file):
    """The values of m of a metrics file."""
    return numbers(Path(file).stem.removeprefix("m").partition("_")[0])


def ablation_rows(table, timed=False):
    """The rows of an ablation as its script takes them: with the metrics files of all models and, if timed, costs."""
    return [
        {
            "variant": row.variant,
            "label": row.label,
            "metrics": [
                file for model in table.models for file in metrics_files(model, row.editor, n_edits=[table.n_edits])
            ],
            "costs": {model: cost_files(model, row.editor, [table.n_edits]) for model in table.models if timed},
        }
        for row in table.rows
    ]


def cost_files(model, editor, n_edits=()):
    """What training an editor on a model, and editing with it, cost: all, or those of some m."""
    metrics = metrics_files(model, editor, n_edits=n_edits)
    return {
        "training": [f"{folder}.cost.json" for folder in trained_editors(model, editor, n_edits)],
        "editing": [file.removesuffix(".json") + ".cost.json" for file in metrics],
    }


def ablation_files(table, timed=False):
    """All files of an ablation."""
    rows = ablation_rows(table, timed)
    costs = [files for row in rows for by_kind in row["costs"].values() for files in by_kind.values()]
    return [file for files in [*(row["metrics"] for row in rows), *costs] for file in files]


def comparison_files(table):
    """The metrics files of a comparison."""
    return [file for editor in table.editors for file in metrics_files(table.model, editor, n_edits=table.n_edits)]


def failures_file(table):
    """The file of the failures that a table shows."""
    return f"{RESULTS}/failures/{table.model}/{table.editor}/m{table.n_edits}_seed{CONFIG.seeds[0]}.json"


def training_of_run(wildcards):
    """The folder of the trained editors among which is that of one m and seed; none if the editor is not trained."""
    folders = trained_editors(wildcards.model, wildcards.editor, [int(wildcards.n_edits)])
    return [folder for folder in folders if int(wildcards.seed) in numbers(folder.rpartition("_seed")[2])]


def machine():
    """Where jobs run models."""
    return {"device": CONFIG.device, "threads": CONFIG.threads}


def label(wildcards):
    """How a message names an editor on a model."""
    model = CONFIG.models[wildcards.model]
    return f"{model.editors[wildcards.editor].label} on {model.label}"


def raw_files(dataset, part):
    """The upstream files that play a part in a data set."""
    return collect("data/raw/{name}", name=CONFIG.data.rebuild.sources(dataset, part))


def translator(direction):
    """The directory of a translation model: a local one, or that of the fetched one."""
    configured = getattr(CONFIG.data.rebuild.translation, direction)
    return configured if Path(configured).is_dir() else f"{REBUILT}/translators/{direction}"


def filtering_model(corpus):
    """The model that filters rephrasings, or none."""
    return CONFIG.data.rebuild.filter.get(corpus)


def steps_of(dataset):
    """The outputs of the steps that a data set's tuples are made of, by step; those of a step's parts in order."""
    corpus = corpus_of(dataset)
    folder = STEPS.format(corpus=corpus)
    names = {"originals": ["originals"], "translated": [f"translated/{part}" for part in PARTS]}
    if filtering_model(corpus):
        names["filtered"] = [f"filtered/{part}" for part in PARTS]
    if dataset == "zsre_alternative":
        names["alternatives"] = ["alternatives"]
    return {step: [f"{folder}/{name}.jsonl" for name in files] for step, files in names.items()}


def reports_of(dataset):
    """The reports of these steps, in the same form."""
    steps = steps_of(dataset)
    return {step: [str(Path(file).with_suffix(".report.json")) for file in files] for step, files in steps.items()}


def requests(job):
    """The resources of a rule whose jobs run a model, by the plan's job for their wildcards; more at each attempt."""

    def resource(kind):
        return lambda wildcards, attempt: requested(lambda: job(wildcards), attempt)[kind]

    return {kind: resource(kind) for kind in ("mem_mb", "runtime", "gpu_mem_mb")}


def training_requests(wildcards):
    """The plan's job for a training."""
    return PLAN.training_job(wildcards.model, wildcards.editor, *sizes_and_seeds(wildcards))


def evaluation_requests(wildcards):
    """The plan's job for a measurement."""
    return PLAN.evaluation_job(wildcards.model, wildcards.editor, *sizes_and_seeds(wildcards))


def sizes_and_seeds(wildcards):
    """The values of m of a job, and the number of its seeds."""
    return numbers(wildcards.sizes), len(numbers(wildcards.seeds))


def refuse_what_does_not_fit():
    """End with one sentence if this machine, or for jobs that run elsewhere its disk, cannot hold the whole run.

    Before any job starts, since Snakemake removes what a job has made before it does it again.
    """
    if workflow.local_exec and needs_gpu() and (missing := missing_gpu(CONFIG.profile)):
        raise WorkflowError(missing)
    try:
        shortage = Capacity.here(CONFIG.folders, jobs_run_here=workflow.local_exec).shortage(PLAN)
    except UserError:  # What is not known cannot be compared.
        return
    if shortage:
        raise WorkflowError(shortage)


def needs_gpu():
    """Whether a job that is to be done runs on a GPU: data, for one, can be made without."""
    return bool(GPU) and any(job.resources.get("gpu") for job in workflow.dag.needrun_jobs())


def announce_plan():
    """Say on standard error how many jobs, hours, memory and disk the whole configuration is expected to take."""
    try:
        sentences = [f"In all {PLAN.summary}", models_to_pin(CONFIG)]
    except UserError as error:
        sentences = [str(error)]
    print(*filter(None, sentences), sep="\n", file=sys.stderr)


def name_targets(record):
    """Let Snakemake's message that no rule makes a target end with a line that names the targets."""
    if "MissingRuleException" in str(record.msg):
        targets = ", ".join(rule.name for rule in workflow.rules if not rule.output)
        file = f"{RESULTS}/figures/{next(iter(CONFIG.figures.names), 'figure4')}.pdf"
        record.msg = f"{record.msg}\nTargets are {targets}, and files such as {file}."
    return True


def announce_results():
    """Say on standard error where the results are, once all are there."""
    summary = Path(RESULTS, "summary.md")
    if summary.is_file() and any(job.rule.name == "all" for job in workflow.dag.jobs):
        print(f"Results: {summary}, and figures/ and tables/ beside it", file=sys.stderr)
