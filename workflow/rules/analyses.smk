# What is measured apart from the editors' success: the memory of a meta-step.


rule measure_memory:
    # Times and sizes: not the same bytes in every run.
    input:
        model=lambda wildcards: edited_model(wildcards.model),
        tuples=lambda wildcards: dataset_file(wildcards.model, "train.jsonl"),
    output:
        f"{RESULTS}/memory/{{model}}.cost.json",
    log:
        f"{LOGS}/memory/{{model}}.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        gpu=GPU,
    params:
        subject=lambda wildcards: subject(wildcards.model),
        editors=memory_editors,
        n_edits=lambda _: CONFIG.figures.figure9.n_edits,
        limit_bytes=lambda _: CONFIG.figures.figure9.limit_bytes,
        machine=machine(),
        code=code_digest("malmen.steps.memory"),
    message:
        "Measuring the memory of a meta-step on {wildcards.model}"
    script:
        "../scripts/measure_memory.py"
