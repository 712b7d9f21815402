# The covariance of the keys of the layers that MEMIT edits, once per model and editor.


rule covariance:
    input:
        LAYOUT.all_covariances(),
    message:
        up_to_date("covariances of keys (of MEMIT's editors)", LAYOUT.all_covariances())


rule collect_covariance:
    input:
        model=edited_model,
        text=LAYOUT.covariance_text,
    output:
        covariance=f"{RESULTS}/editors/{{model}}/{{editor}}/key_covariance.safetensors",
        cost=f"{RESULTS}/editors/{{model}}/{{editor}}/key_covariance.cost.json",
    log:
        f"{LOGS}/editors/{{model}}/{{editor}}/key_covariance.log",
    conda:
        "../../environment.yml"
    threads: REQUESTS.threads_of_ranks
    resources:
        **REQUESTS.of("collect_covariance"),
        gpu=REQUESTS.gpus_of_ranks,
    params:
        model=edited_model_spec,
        settings=PARAMETERS.covariance_settings,
        machine=PARAMETERS.machine_of_ranks,
        label=PARAMETERS.label,
        code=code_of("collect_covariance.py", "malmen.jobs.collect_covariance"),
    message:
        "Collecting the covariance of keys for {params.label}"
    script:
        "../scripts/collect_covariance.py"
