# Whether everything in the results can be traced back to the raw data: it makes nothing, and always runs when asked to.


rule audit:
    log:
        f"{LOGS}/audit.log",
    conda:
        "../../environment.yml"
    params:
        code=code_digest("malmen.provenance.audit"),
    message:
        "Auditing {RESULTS}"
    script:
        "../scripts/audit.py"
