# The lineage of figures and tables back to the raw data: a page of the report, and the audit.


rule write_lineage:
    # It also reads the records of all jobs, which exist once these files exist.
    input:
        collect(f"{RESULTS}/figures/{{figure}}.sources.json", figure=CONFIG.figures),
        collect(f"{RESULTS}/tables/{{table}}.sources.json", table=[*CONFIG.tables, "compute"]),
        f"{RESULTS}/summary.sources.json",
        LAYOUT.explorer("sources.json"),
        LAYOUT.after_malmen("sources.json"),
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
        setting=PARAMETERS.setting(CONFIG.models),
        code=code_of("write_lineage.py", "malmen.audit.page"),
    message:
        "Writing {output}"
    script:
        "../scripts/write_lineage.py"


rule audit:
    # It has no output, so it runs whenever it is the target.
    log:
        f"{LOGS}/audit.log",
    conda:
        "../../environment.yml"
    params:
        code=code_of("audit.py", "malmen.audit.report"),
    message:
        "Auditing {RESULTS}"
    script:
        "../scripts/audit.py"
