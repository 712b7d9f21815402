# Editing in rounds: groups of edits one after the other into the same weights, all of them measured at the end.


rule rounds:
    # Shown by a figure or not.
    input:
        LAYOUT.all_rounds(),
    message:
        up_to_date("measurements in rounds", LAYOUT.all_rounds())


rule edit_in_rounds:
    input:
        trained=LAYOUT.trained_for_rounds,
        covariance=LAYOUT.key_covariance,
        model=edited_model,
        tuples=dataset_file("validation.jsonl"),
        text=dataset_file("text.txt"),
        train=LAYOUT.retraining_tuples,
    output:
        rounds=f"{RESULTS}/rounds/{{model}}/{{editor}}/{{rounds}}_seed{{seeds}}.json",
        cost=f"{RESULTS}/rounds/{{model}}/{{editor}}/{{rounds}}_seed{{seeds}}.cost.json",
    log:
        f"{LOGS}/rounds/{{model}}/{{editor}}/{{rounds}}_seed{{seeds}}.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **REQUESTS.of("edit_in_rounds"),
        gpu=REQUESTS.gpus_of,
    params:
        model=edited_model_spec,
        settings=PARAMETERS.editor,
        rounds=PARAMETERS.rounds,
        seeds=lambda wildcards: numbers(wildcards.seeds),
        n_decoded=CONFIG.evaluation.decoded,
        n_texts=CONFIG.evaluation.perplexity_texts,
        machine=PARAMETERS.machine,
        label=PARAMETERS.label,
        state=f"{STATES}/rounds/{{model}}/{{editor}}/{{rounds}}_seed{{seeds}}",
        code=code_of("edit_in_rounds.py", "malmen.jobs.edit_in_rounds"),
    message:
        "Editing in rounds with {params.label}: {wildcards.rounds}, seed {wildcards.seeds}"
    script:
        "../scripts/edit_in_rounds.py"
