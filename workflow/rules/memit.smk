# What MEMIT needs beside the model: second moments of the keys of the layers that it edits, once per model and editor.


rule collect_statistics:
    input:
        model=edited_model,
        text=LAYOUT.covariance_text,
    output:
        f"{RESULTS}/editors/{{model}}/{{editor}}/second_moments.safetensors",
    log:
        f"{LOGS}/editors/{{model}}/{{editor}}/second_moments.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **REQUESTS.of("collect_statistics"),
        gpu=REQUESTS.gpus_of,
    params:
        model=edited_model_spec,
        settings=PARAMETERS.covariance_settings,
        machine=PARAMETERS.machine,
        label=PARAMETERS.label,
        code=code_of("collect_statistics.py", "malmen.jobs.collect_covariance"),
    message:
        "Collecting second moments for {params.label}"
    script:
        "../scripts/collect_statistics.py"
