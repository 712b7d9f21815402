# From data to figures: reads the configuration, includes the rules, and names the targets.

import sys

from malmen.errors import UserError
from malmen.workflow.place import call_python_without_quotes, check_place
from snakemake.utils import min_version

min_version("9.17")  # priorities that are functions

try:
    check_place(workflow.basedir)
except UserError as error:
    sys.exit(str(error))  # one sentence, without the lines that Snakemake adds to an exception
call_python_without_quotes()


# Only without --configfile, lest what another configuration leaves out be taken from this one.
if not workflow.overwrite_configfiles:

    configfile: "config/demo.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/rebuild.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/caches.smk"
include: "workflow/rules/memit.smk"
include: "workflow/rules/editors.smk"
include: "workflow/rules/rounds.smk"
include: "workflow/rules/analyses.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/sharing.smk"
include: "workflow/rules/targets.smk"


# What gives a figure first is run first.
for made in workflow.rules:
    made.priority = partial(priority_of, made.name)


logger.addFilter(say_more)


onstart:
    if not workflow.touch:
        stop_before_published()
        stop_before_leaving_out()
        check_run()
        warn_about_git()
        show_time_left()


onsuccess:
    announce_results()


localrules:
    all,
    data,
    models,
    caches,
    covariance,
    editors,
    rounds,
    figures,
    tables,
    summary,
    explorer,
    tuning,
    audit,
    publish,


rule all:
    default_target: True
    # A configuration without figures and tables is that of somebody who wants editors.
    input:
        [
            rules.figures.input,
            rules.tables.input,
            rules.summary.input,
            rules.write_lineage.output,
            rules.write_index.output,
            LAYOUT.explorer(),
            LAYOUT.after_malmen("md"),
        ]
        if CONFIG.figures or CONFIG.tables
        else rules.editors.input,
    message:
        "All figures and tables are up to date" if CONFIG.figures or CONFIG.tables else ABOUT_EDITORS
