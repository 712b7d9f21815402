# Editors: trained for each m, then measured on groups of m edits.


ABOUT_EDITORS = up_to_date("editors that need preparation", LAYOUT.all_editors())


rule editors:
    # Shown by a figure or not.
    input:
        LAYOUT.all_editors(),
    message:
        ABOUT_EDITORS


rule train_editor:
    input:
        model=edited_model,
        train=dataset_file("train.jsonl"),
        cache=lambda wildcards: cache_of(wildcards, "train"),
    output:
        trained=directory(f"{RESULTS}/editors/{{model}}/{{editor}}/m{{n_edits}}_seed{{seeds}}"),
        cost=f"{RESULTS}/editors/{{model}}/{{editor}}/m{{n_edits}}_seed{{seeds}}.cost.json",
    log:
        f"{LOGS}/editors/{{model}}/{{editor}}/m{{n_edits}}_seed{{seeds}}.log",
    conda:
        "../../environment.yml"
    threads: REQUESTS.threads_of_ranks
    resources:
        **REQUESTS.of("train_editor"),
        gpu=REQUESTS.gpus_of_ranks,
    params:
        model=edited_model_spec,
        settings=PARAMETERS.training_settings,
        shared=PARAMETERS.sharing_settings,
        n_edits=lambda wildcards: numbers(wildcards.n_edits),
        seeds=lambda wildcards: numbers(wildcards.seeds),
        machine=PARAMETERS.machine_of_ranks,
        label=PARAMETERS.label,
        state=f"{STATES}/editors/{{model}}/{{editor}}/m{{n_edits}}_seed{{seeds}}",
        code=code_of("train_editor.py", "malmen.jobs.train_editor"),
    message:
        "Training {params.label}: m = {wildcards.n_edits}, seed {wildcards.seeds}"
    script:
        "../scripts/train_editor.py"


rule evaluate_editor:
    input:
        trained=LAYOUT.training_of,
        covariance=LAYOUT.key_covariance,
        model=edited_model,
        tuples=dataset_file("{split}.jsonl"),
        cache=lambda wildcards: cache_of(wildcards, wildcards.split),
    output:
        metrics=f"{RESULTS}/metrics/{{split}}/{{model}}/{{editor}}/m{{n_edits}}_seed{{seeds}}.json",
        cost=f"{RESULTS}/metrics/{{split}}/{{model}}/{{editor}}/m{{n_edits}}_seed{{seeds}}.cost.json",
        answers=f"{RESULTS}/metrics/{{split}}/{{model}}/{{editor}}/m{{n_edits}}_seed{{seeds}}.answers.json",
    log:
        f"{LOGS}/metrics/{{split}}/{{model}}/{{editor}}/m{{n_edits}}_seed{{seeds}}.log",
    conda:
        "../../environment.yml"
    threads: REQUESTS.threads_of_ranks
    resources:
        **REQUESTS.of("evaluate_editor"),
        gpu=REQUESTS.gpus_of_ranks,
    params:
        model=edited_model_spec,
        settings=PARAMETERS.editor,
        shared=PARAMETERS.sharing_settings,
        n_edits=PARAMETERS.measured_n_edits,
        seeds=lambda wildcards: numbers(wildcards.seeds),
        max_groups=PARAMETERS.max_groups,
        n_answers=PARAMETERS.kept_answers,
        machine=PARAMETERS.machine_of_ranks,
        label=PARAMETERS.label,
        state=f"{STATES}/metrics/{{split}}/{{model}}/{{editor}}/m{{n_edits}}_seed{{seeds}}",
        code=code_of("evaluate_editor.py", "malmen.jobs.evaluate_editor"),
    message:
        "Editing with {params.label}: m = {wildcards.n_edits}, seed {wildcards.seeds}"
    script:
        "../scripts/evaluate_editor.py"


rule tuning:
    # Metrics of every editor on tuples held out from training, to choose hyper-parameters.
    input:
        f"{RESULTS}/tuning.csv",
    message:
        "The tuning table is up to date"


rule collect_tuning:
    input:
        LAYOUT.tuning_files(),
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
