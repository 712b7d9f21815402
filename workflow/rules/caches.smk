# Base outputs that all runs on a model share, computed once if the configuration has a section `cache`.


rule caches:
    # Run this first if caches were deleted and new runs are added: finished runs then stay finished.
    input:
        LAYOUT.all_caches(),
    message:
        up_to_date("caches", LAYOUT.all_caches())


rule cache_base_outputs:
    input:
        model=edited_model,
        tuples=dataset_file("{split}.jsonl"),
    output:
        directory(f"{RESULTS}/cache/{{model}}/{{editor}}/{{split}}"),
    log:
        f"{LOGS}/cache/{{model}}/{{editor}}/{{split}}.log",
    wildcard_constraints:
        split="train|tune|validation",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **REQUESTS.of("cache_base_outputs"),
        gpu=REQUESTS.gpus_of,
    params:
        model=edited_model_spec,
        settings=lambda wildcards: PARAMETERS.cached_settings(wildcards.model, wildcards.editor),
        n_tuples=lambda wildcards: CONFIG.cached_tuples(wildcards.model, wildcards.split),
        machine=PARAMETERS.machine,
        code=code_of("cache_base_outputs.py", "malmen.jobs.cache_base_outputs"),
    message:
        "Caching the base outputs of {wildcards.model}: {wildcards.split} tuples"
    script:
        "../scripts/cache_base_outputs.py"
