# What training and editing of a model have in common, computed once where the configuration asks for it.


rule caches:
    # First, where they were deleted and new runs are added: then finished runs stay finished.
    input:
        sorted(
            {
                folder
                for model in CONFIG.models
                for editor in CONFIG.editors
                if trained_editors(model, editor)
                for split in ("train", "validation")
                for folder in shared_folder(model, editor, split)
            }
        ),
    message:
        "All caches are up to date"


rule cache_model:
    input:
        model=lambda wildcards: edited_model(wildcards.model),
        tuples=lambda wildcards: dataset_file(wildcards.model, f"{wildcards.split}.jsonl"),
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
        **requests(lambda wildcards: PLAN.cache_job(wildcards.model, wildcards.editor, wildcards.split)),
        gpu=gpus,
    params:
        model=lambda wildcards: edited_model_spec(wildcards.model),
        settings=lambda wildcards: cached_settings(wildcards.model, wildcards.editor),
        machine=machine(),
        code=code_of("cache_model.py", "malmen.jobs.cache_base_outputs"),
    message:
        "Caching what runs on {wildcards.model} share: {wildcards.split} tuples"
    script:
        "../scripts/cache_model.py"
