# The checked configuration, helpers of the rules, and messages before and after a run.

import os
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import get_args

from malmen.config.base import Dataset
from malmen.config.load import load as load_config
from malmen.config.upstream_files import upstream_files
from malmen.data.world import TEXTS as WORLD_TEXTS
from malmen.audit.planned import step
from malmen.plan.estimate import Known
from malmen.plan.jobs import CostedJob
from malmen.plan.machine import Capacity, missing_gpu, too_few_gpus
from malmen.plan.order import priorities
from malmen.plan.report import summary
from malmen.provenance.environment import warn_about_git
from malmen.provenance.records import name_of, records_folder
from malmen.runtime.files import sha256
from malmen.workflow import parameters
from malmen.workflow.layout import DATASET_FILES, PUBLISHED, WORLD_DATASETS, Layout, numbers, one_of
from malmen.workflow.parameters import Parameters, up_to_date
from malmen.workflow.resources import Requests
from malmen.workflow.time_left import ProgressFilter, TimeLeft, expected


def configurations():
    """Return the names of the configuration's files."""
    files = [os.path.relpath(file) for file in workflow.overwrite_configfiles] or ["config/demo.yaml"]
    return " and ".join([*files, *["--config"] * bool(workflow.config_settings.config)])


try:
    CONFIG = load_config(config, f"Configuration ({configurations()})")
except UserError as error:
    sys.exit(str(error))

KNOWN = Known(CONFIG)
LAYOUT = Layout(CONFIG)
PARAMETERS = Parameters(LAYOUT)
REQUESTS = Requests(KNOWN)

RESULTS = LAYOUT.results
RECORDS = records_folder(CONFIG.run)
DATASETS = LAYOUT.data
LOGS = LAYOUT.logs
STATES = LAYOUT.states
FIGURE_FILES = ["pdf", "png", "csv", "sources.json"]
TABLE_FILES = ["md", "html", "tex", "csv", "sources.json"]


wildcard_constraints:
    figure=one_of(CONFIG.figures),
    table=one_of(CONFIG.tables),
    model="|".join(CONFIG.models),
    editor="|".join(CONFIG.editors),
    dataset=one_of(get_args(Dataset)),
    split="tune|validation",
    corpus="fever|zsre",
    part=r"\d+-of-\d+",
    direction="forward|backward",
    n_edits=r"\d+(-\d+)*",
    rounds=r"\d+x\d+(-\d+x\d+)*",
    seeds=r"\d+(-\d+)*",
    seed=r"\d+",


def named_of_kind(outputs, kind):
    """Return a regular expression for the names of the figures or tables of a kind."""
    return one_of(name for name, output in outputs.items() if output.kind == kind)


def code_of(script, *modules):
    """Return the digests of the code of a rule."""
    return parameters.code_of(Path(workflow.basedir, "workflow", "scripts"), script, *modules)


def edited_model(wildcards):
    """Return the directory of a job's model, as it is before editing."""
    return LAYOUT.edited_model(wildcards.model)


def edited_model_spec(wildcards):
    """Return the description of that model for a job."""
    return PARAMETERS.edited_model_spec(wildcards.model)


def dataset_file(name):
    """Return an input function for a file of the data set of a job's model."""
    return lambda wildcards: LAYOUT.dataset_file(wildcards.model, name.format_map(wildcards))


def cache_of(wildcards, split):
    """Return the cache that a job uses, as ancient: finished runs stay finished if the cache is made again.

    The runs depend themselves on everything that changes the cache.
    """
    return [ancient(folder) for folder in LAYOUT.caches(wildcards.model, wildcards.editor, split)]


def pending_jobs():
    """Return the jobs to be done that run a script, with their costs; raise UserError if one is not known."""
    return [CostedJob.of(step(job), KNOWN) for job in workflow.dag.needrun_jobs() if job.rule.script]


@cache
def pending_priorities():
    """Return the priorities of these jobs by name; {} if a cost is not known."""
    try:
        return priorities(pending_jobs())
    except UserError:
        return {}


def priority_of(name, wildcards):
    """Return the priority of a rule's job: the figure or table of which least is left to do is made first."""
    return pending_priorities().get(name_of(name, dict(wildcards.items())), 0) if workflow.is_main_process else 0


def check_run():
    """Print the expected costs of the pending jobs; raise WorkflowError if this machine cannot run them.

    This happens before any job starts, because Snakemake removes the outputs of a job before it repeats the job.
    """
    try:
        jobs = pending_jobs()
    except UserError as error:
        print(error, file=sys.stderr)
        return
    if CONFIG.device == "cuda":
        print(summary(jobs, CONFIG.device), file=sys.stderr)
    on_gpu = any(job.cost.on_gpu for job in jobs)
    missing = missing_gpu(CONFIG.run) if on_gpu and workflow.local_exec and CONFIG.check_machine else None
    # Snakemake lowers what a job asks for to what the run may use, and says nothing.
    granted = workflow.global_resources.get("gpu").value
    refusals = [missing or too_few_gpus(jobs, granted, workflow.local_exec)]
    if CONFIG.check_machine:
        here = Capacity.here(CONFIG.folders, jobs_run_here=workflow.local_exec)
        refusals.append(here.shortage(CONFIG.run, jobs))
    if any(refusals):
        raise WorkflowError("\n".join(filter(None, refusals)))


def show_time_left():
    """Add a line with the time left to Snakemake's lines of progress, if the costs of all jobs are known."""
    try:
        jobs = {
            job.jobid: expected(KNOWN, job.rule.name, job.wildcards_dict, bool(job.rule.script))
            for job in workflow.dag.needrun_jobs()
        }
    except UserError:
        return
    logger.addFilter(ProgressFilter(logger, TimeLeft(jobs)))


def made_elsewhere():
    """Return the jobs that have left records and results here, of which Snakemake keeps no note: published ones.

    A checkout gives files new times in any order, and without its notes Snakemake sees neither other settings nor other
    code. So it would leave out work, or do some, by chance.
    """
    # What is forced is made anew anyway, as is what an interrupted run left.
    jobs = [job for job in workflow.dag.jobs if not workflow.dag.reason(job).forced]
    recorded = [job for job in jobs if Path(RECORDS, f"{step(job).name}.json").is_file()]
    complete = [job for job in recorded if all(os.path.exists(file) for file in job.output)]
    return [job for job in complete if not workflow.persistence.has_metadata(job)]


def about_published():
    """Return what to do with results that were not made in this checkout."""
    return (
        f"{RESULTS} holds published results, not made in this checkout: see {RESULTS}/index.html, check them with "
        f"`malmen audit --figures-only{named()}`, go on from them with `malmen restore{named()}`, or remove them with "
        f"`rm -r {RESULTS}` to make all of them anew."
    )


def named():
    """Return the option that names the configuration, where it is not the default one."""
    files = " ".join(os.path.relpath(file) for file in workflow.overwrite_configfiles)
    return f" --configfile {files}" if files else ""


def stop_before_published():
    """End, instead of leaving out work by chance, if results were published by another checkout.

    Where all that is asked for is there, this is no failure.
    """
    if made_elsewhere():
        missing = any(workflow.dag.reason(job).missing_output for job in workflow.dag.needrun_jobs())
        print(about_published(), file=sys.stderr)
        sys.exit(1 if missing else 0)


def left_out():
    """Return the jobs that Snakemake leaves out, by mistake, because a cache that they use is to be made again.

    It does not look at jobs that follow one to be run, since they will run too; but those that take its output as
    ancient do not.
    """
    pending = set(filter(workflow.dag.needrun, workflow.dag.jobs))
    stale = (job for job in pending if job.rule.name == "cache_base_outputs" and os.path.exists(job.output[0]))
    return {job for cache in stale for job in workflow.dag.depending[cache]} - pending


def about_left_out():
    """Return what to do with jobs that are left out."""
    return (
        "Shared caches are out of date, and Snakemake would leave out what uses them: "
        f"run `snakemake caches{named()}` first, then this command again."
    )


def stop_before_leaving_out():
    """End, instead of doing a part of the work and calling it all, if Snakemake would leave out some."""
    if left_out():
        print(about_left_out(), file=sys.stderr)
        sys.exit(1)


def say_more(record):
    """Add the names of the targets to Snakemake's message that no rule makes one, and the results where all are there."""
    if str(record.msg).startswith("Nothing to be done"):
        if made_elsewhere():
            print(about_published(), file=sys.stderr)
        else:
            announce_results()
    if str(record.msg).startswith("This was a dry-run") and made_elsewhere():
        record.msg = f"{record.msg}\n{about_published()}"
    if str(record.msg).startswith("This was a dry-run") and left_out():
        record.msg = f"{record.msg}\n{about_left_out()}"
    if "MissingRuleException" in str(record.msg):
        targets = ", ".join(rule.name for rule in workflow.rules if not rule.output)
        file = f"{RESULTS}/figures/{next(iter(CONFIG.figures), 'figure4')}.pdf"
        record.msg = f"{record.msg}\nTargets are {targets}, and files such as {file}."
    return True


def announce_results():
    """Print where the results are, on standard error, if they are complete."""
    targets, index = {job.rule.name for job in workflow.dag.jobs}, Path(RESULTS, "index.html")
    shows_results = CONFIG.figures or CONFIG.tables
    if "editors" in targets or ("all" in targets and not shows_results):
        print(*PARAMETERS.editor_lines(), sep="\n", file=sys.stderr)
    if index.is_file() and "all" in targets and shows_results:
        print(
            f"Results: {index} (open it in a browser); summary.md, figures/ and tables/ are beside it", file=sys.stderr
        )
