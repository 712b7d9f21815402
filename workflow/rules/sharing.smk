# Handing finished results on. DVC keeps data sets and checkpoints, git all else.


rule publish:
    # Without output: whoever asks for it gets it. After everything else, and alone, for DVC takes one command at a time.
    input:
        rules.figures.input,
        rules.tables.input,
        rules.summary.input,
        rules.write_lineage.output,
    log:
        f"{LOGS}/publish.log",
    conda:
        "../../environment.yml"
    params:
        run=CONFIG.run,
    message:
        "Publishing data and checkpoints of {params.run} with DVC"
    script:
        "../scripts/publish_results.py"
