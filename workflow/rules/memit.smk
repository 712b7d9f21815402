# What MEMIT needs beside the model: second moments of the keys of the layers that it edits, once per model and editor.


rule collect_statistics:
    input:
        model=lambda wildcards: edited_model(wildcards.model),
        text=statistics_text,
    output:
        f"{RESULTS}/editors/{{model}}/{{editor}}/second_moments.safetensors",
    log:
        f"{LOGS}/editors/{{model}}/{{editor}}/second_moments.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **requests(lambda wildcards: PLAN.statistics_job(wildcards.model, wildcards.editor)),
        gpu=gpus,
    params:
        model=lambda wildcards: edited_model_spec(wildcards.model),
        settings=statistics_settings,
        machine=machine(),
        label=label,
        code=code_of("collect_statistics.py", "malmen.jobs.collect_covariance"),
    message:
        "Collecting second moments for {params.label}"
    script:
        "../scripts/collect_statistics.py"
