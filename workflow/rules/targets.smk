# Targets for one figure or table by its name, and for the HTML report; included after all other rules.
# A figure or table with the name of a rule keeps its files as targets.

from itertools import filterfalse

for figure in filterfalse(workflow.is_rule, CONFIG.figures):

    rule:
        name:
            figure
        input:
            collect(f"{RESULTS}/figures/{figure}.{{suffix}}", suffix=["pdf", "png", "csv"]),
        localrule: True
        message:
            f"{RESULTS}/figures/{figure}.pdf is up to date"


for table in filterfalse(workflow.is_rule, CONFIG.tables):

    rule:
        name:
            table
        input:
            collect(f"{RESULTS}/tables/{table}.{{suffix}}", suffix=["md", "html", "tex", "csv"]),
        localrule: True
        message:
            f"{RESULTS}/tables/{table}.md is up to date"


rule report:
    # It has no output, so it runs whenever it is the target: Snakemake's report holds all that was made by then.
    input:
        lambda wildcards: rules.all.input,
    log:
        f"{LOGS}/report.log",
    conda:
        "../../environment.yml"
    params:
        out=f"{RESULTS}/report.html",
    message:
        "Writing {params.out}"
    script:
        "../scripts/write_report.py"
