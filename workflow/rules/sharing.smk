# Publication of finished results: DVC keeps data sets and checkpoints, git everything else.


rule publish:
    # It has no output, so it runs whenever it is the target. It is one job, because DVC runs one command at a time.
    input:
        lambda wildcards: rules.all.input,
    log:
        f"{LOGS}/publish.log",
    conda:
        "../../environment.yml"
    params:
        run=CONFIG.run,
        quoting=LAYOUT.quoting_files(),
    message:
        "Publishing data and checkpoints of {params.run} with DVC"
    script:
        "../scripts/publish_results.py"
