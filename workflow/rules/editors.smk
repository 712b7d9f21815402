# Editors: trained for each m, then measured on groups of m edits.


rule editors:
    input:
        [
            f"{trained_editor(model, editor, m, seed)}/editor.safetensors"
            for model, settings in CONFIG.models.items()
            for editor in CONFIG.editors
            if settings.editors[editor].trained
            for m in CONFIG.sizes(model, editor)
            for seed in CONFIG.seeds
        ],
    message:
        "All editors are up to date"


rule train_editor:
    input:
        model=lambda wildcards: edited_model(wildcards.model),
        train=lambda wildcards: dataset_file(wildcards.model, "train.jsonl"),
    output:
        editor=f"{trained_editor('{model}', '{editor}', '{m}', '{seed}')}/editor.safetensors",
        record=f"{trained_editor('{model}', '{editor}', '{m}', '{seed}')}/training.json",
        cost=f"{trained_editor('{model}', '{editor}', '{m}', '{seed}')}/cost.json",
    log:
        f"{LOGS}/editors/{{model}}/{{editor}}/m{{m}}_seed{{seed}}.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        gpu=GPU,
    params:
        subject=lambda wildcards: subject(wildcards.model),
        settings=editor_settings,
        machine=machine(),
        label=label,
        code=code_digest("malmen.steps.training"),
    message:
        "Training {params.label}: m = {wildcards.m}, seed {wildcards.seed}"
    script:
        "../scripts/train_editor.py"


rule evaluate_editor:
    input:
        trained_editors,
        statistics=second_moments,
        model=lambda wildcards: edited_model(wildcards.model),
        tuples=lambda wildcards: dataset_file(wildcards.model, f"{wildcards.split}.jsonl"),
    output:
        metrics=f"{RESULTS}/metrics/{{split}}/{{model}}/{{editor}}/m{{sizes}}/seed{{seed}}.json",
        cost=f"{RESULTS}/metrics/{{split}}/{{model}}/{{editor}}/m{{sizes}}/seed{{seed}}.cost.json",
    log:
        f"{LOGS}/metrics/{{split}}/{{model}}/{{editor}}/m{{sizes}}_seed{{seed}}.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        gpu=GPU,
    params:
        subject=lambda wildcards: subject(wildcards.model),
        settings=editor_settings,
        trained=lambda wildcards: [str(Path(file).parent) for file in trained_editors(wildcards)[::2]],
        max_groups=CONFIG.evaluation.max_groups,
        machine=machine(),
        label=label,
        code=code_digest("malmen.steps.evaluation"),
    message:
        "Editing with {params.label}: m = {wildcards.sizes}, seed {wildcards.seed}"
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
            for file in metrics_files(model, editor, "tune", CONFIG.tuning_sizes(model))
        ],
    output:
        f"{RESULTS}/tuning.csv",
    log:
        f"{LOGS}/tuning.log",
    conda:
        "../../environment.yml"
    params:
        code=code_digest("malmen.figures.metrics"),
    message:
        "Collecting the metrics on tuples held out for tuning"
    script:
        "../scripts/collect_tuning.py"
