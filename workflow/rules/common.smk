# The checked configuration, what it says of every rule, and what is said before and after a run.

import os
import sys
from dataclasses import asdict
from pathlib import Path

from malmen.config.load import load as load_config
from malmen.config.upstream_files import upstream_files
from malmen.data.world import TEXTS as WORLD_TEXTS
from malmen.errors import UserError
from malmen.plan.machine import Capacity, missing_gpu
from malmen.plan.estimate import Plan, models_to_pin
from malmen.runtime.files import sha256
from malmen.workflow import parameters
from malmen.workflow.layout import DATASET_FILES, PUBLISHED, WORLD_DATASETS, Layout, numbers, one_of
from malmen.workflow.parameters import Parameters
from malmen.workflow.resources import Requests


def configurations():
    """What the configuration was read from."""
    files = [os.path.relpath(file) for file in workflow.overwrite_configfiles] or ["config/demo.yaml"]
    return " and ".join([*files, *["--config"] * bool(workflow.config_settings.config)])


try:
    CONFIG = load_config(config, f"Configuration ({configurations()})")
except UserError as error:
    sys.exit(str(error))  # one sentence, where an exception would add lines of its own

PLAN = Plan(CONFIG)
LAYOUT = Layout(CONFIG)
PARAMETERS = Parameters(LAYOUT)
REQUESTS = Requests(CONFIG, PLAN)

RESULTS = LAYOUT.results
DATASETS = LAYOUT.data
LOGS = LAYOUT.logs
STATES = LAYOUT.states

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
    n_edits=r"\d+(-\d+)*",
    seeds=r"\d+(-\d+)*",
    seed=r"\d+",


def code_of(script, *modules):
    """The digests of the code of a rule."""
    return parameters.code_of(Path(workflow.basedir, "workflow", "scripts"), script, *modules)


def edited_model(wildcards):
    """The directory of a job's model as it is edited."""
    return LAYOUT.edited_model(wildcards.model)


def edited_model_spec(wildcards):
    """What a job needs to know of that model."""
    return PARAMETERS.edited_model_spec(wildcards.model)


def dataset_file(name):
    """An input function for a file of the data set of a job's model."""
    return lambda wildcards: LAYOUT.dataset_file(wildcards.model, name.format_map(wildcards))


def cache_of(wildcards, split):
    """The cache that a job uses: ancient, so that finished runs stay finished when it is made once more.

    They depend themselves on all that changes it.
    """
    return [ancient(folder) for folder in LAYOUT.caches(wildcards.model, wildcards.editor, split)]


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
    return CONFIG.device == "cuda" and any(job.resources.get("gpu") for job in workflow.dag.needrun_jobs())


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
