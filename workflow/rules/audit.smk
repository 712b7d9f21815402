# From figures and tables back to the raw data: the page for readers, and the check that all of it holds.


rule write_lineage:
    # From the records of all jobs, too: they are there once these files are.
    input:
        collect(f"{RESULTS}/figures/{{figure}}.sources.json", figure=CONFIG.figures),
        collect(f"{RESULTS}/tables/{{table}}.sources.json", table=[*CONFIG.tables, "compute"]),
        f"{RESULTS}/summary.sources.json",
    output:
        report(
            f"{RESULTS}/lineage.html",
            caption="../report/lineage.rst",
            category="Summary",
            labels={"table": "Where every number comes from", "model": "all", "data": "all"},
        ),
    log:
        f"{LOGS}/lineage.log",
    conda:
        "../../environment.yml"
    params:
        run=CONFIG.run,
        code=code_of("write_lineage.py", "malmen.audit.page"),
    message:
        "Writing {output}"
    script:
        "../scripts/write_lineage.py"


rule audit:
    # It makes nothing, and so runs whenever it is asked to.
    log:
        f"{LOGS}/audit.log",
    conda:
        "../../environment.yml"
    params:
        code=code_of("audit.py", "malmen.audit.audit"),
    message:
        "Auditing {RESULTS}"
    script:
        "../scripts/audit.py"
