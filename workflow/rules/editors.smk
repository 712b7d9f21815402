# Editors: trained for each m, then measured on groups of m edits.


rule editors:
    input:
        [folder for model in CONFIG.models for editor in CONFIG.editors for folder in trained_editors(model, editor)],
    message:
        "All editors are up to date"


rule train_editor:
    input:
        model=lambda wildcards: edited_model(wildcards.model),
        train=lambda wildcards: dataset_file(wildcards.model, "train.jsonl"),
        cache=lambda wildcards: cache_of(wildcards, "train"),
    output:
        trained=directory(f"{RESULTS}/editors/{{model}}/{{editor}}/m{{sizes}}_seed{{seeds}}"),
        cost=f"{RESULTS}/editors/{{model}}/{{editor}}/m{{sizes}}_seed{{seeds}}.cost.json",
    log:
        f"{LOGS}/editors/{{model}}/{{editor}}/m{{sizes}}_seed{{seeds}}.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **requests(training_requests),
        gpu=gpus,
    params:
        model=lambda wildcards: edited_model_spec(wildcards.model),
        settings=editor_settings,
        shared=sharing_settings,
        n_edits=lambda wildcards: numbers(wildcards.sizes),
        seeds=lambda wildcards: numbers(wildcards.seeds),
        machine=machine(),
        label=label,
        state=f"{STATES}/editors/{{model}}/{{editor}}/m{{sizes}}_seed{{seeds}}",
        code=code_of("train_editor.py", "malmen.jobs.train_editors"),
    message:
        "Training {params.label}: m = {wildcards.sizes}, seed {wildcards.seeds}"
    script:
        "../scripts/train_editor.py"


rule evaluate_editor:
    input:
        trained=training_of,
        statistics=second_moments,
        model=lambda wildcards: edited_model(wildcards.model),
        tuples=lambda wildcards: dataset_file(wildcards.model, f"{wildcards.split}.jsonl"),
        cache=lambda wildcards: cache_of(wildcards, wildcards.split),
    output:
        metrics=f"{RESULTS}/metrics/{{split}}/{{model}}/{{editor}}/m{{sizes}}_seed{{seeds}}.json",
        cost=f"{RESULTS}/metrics/{{split}}/{{model}}/{{editor}}/m{{sizes}}_seed{{seeds}}.cost.json",
    log:
        f"{LOGS}/metrics/{{split}}/{{model}}/{{editor}}/m{{sizes}}_seed{{seeds}}.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **requests(evaluation_requests),
        gpu=gpus,
    params:
        model=lambda wildcards: edited_model_spec(wildcards.model),
        settings=editor_settings,
        shared=sharing_settings,
        n_edits=measured_sizes,
        seeds=lambda wildcards: numbers(wildcards.seeds),
        max_groups=CONFIG.evaluation.max_groups,
        machine=machine(),
        label=label,
        state=f"{STATES}/metrics/{{split}}/{{model}}/{{editor}}/m{{sizes}}_seed{{seeds}}",
        code=code_of("evaluate_editor.py", "malmen.jobs.evaluate_editor"),
    message:
        "Editing with {params.label}: m = {wildcards.sizes}, seed {wildcards.seeds}"
    script:
        "../scripts/evaluate_editor.py"


rule tuning:
    # Every editor on the tuples held out from training: the numbers by which hyper-parameters are chosen.
    input:
        f"{RESULTS}/tuning.csv",
    message:
        "The tuning table is up to date"


rule collect_tuning:
    input:
        [
            file
            for model in CONFIG.models
            for editor in CONFIG.editors
            if suits(model, editor)
            for file in metrics_files(model, editor, "tune")
            if set(CONFIG.tuning_sizes(model)) & set(sizes_of(file))
        ],
    output:
        f"{RESULTS}/tuning.csv",
    log:
        f"{LOGS}/tuning.log",
    conda:
        "../../environment.yml"
    params:
        code=code_of("collect_tuning.py", "malmen.figures.metrics"),
    message:
        "Collecting the metrics on tuples held out for tuning"
    script:
        "../scripts/collect_tuning.py"
