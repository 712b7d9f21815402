# What training and editing of a model have in common, computed once where the configuration asks for it.


rule cache_model:
    input:
        model=lambda wildcards: edited_model(wildcards.model),
        tuples=lambda wildcards: dataset_file(wildcards.model, f"{wildcards.split}.jsonl"),
    output:
        temp(directory(f"{RESULTS}/cache/{{model}}/{{editor}}/{{split}}")),
    log:
        f"{LOGS}/cache/{{model}}/{{editor}}/{{split}}.log",
    wildcard_constraints:
        split="train|tune|validation",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        gpu=GPU,
    params:
        subject=lambda wildcards: subject(wildcards.model),
        settings=cached_settings,
        max_gb=CONFIG.cache.max_gb if CONFIG.cache else 0,
        machine=machine(),
        code=code_digest("malmen.steps.cache"),
    message:
        "Caching what runs on {wildcards.model} share: {wildcards.split} tuples"
    script:
        "../scripts/cache_model.py"
