# Tables, written from metrics, costs and lists of failures.


rule tables:
    input:
        collect(f"{RESULTS}/tables/{{table}}.{{suffix}}", table=CONFIG.tables, suffix=["md", "html", "tex", "csv"]),
    message:
        up_to_date("tables", CONFIG.tables)


rule write_ablation:
    input:
        lambda wildcards: LAYOUT.ablation_files(CONFIG.tables[wildcards.table]),
        published=lambda wildcards: LAYOUT.published(CONFIG.tables[wildcards.table]),
    output:
        md=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        csv=f"{RESULTS}/tables/{{table}}.csv",
        sources=f"{RESULTS}/tables/{{table}}.sources.json",
        html=report(
            f"{RESULTS}/tables/{{table}}.html",
            caption="../report/ablation.rst",
            category="Ablations",
            labels=PARAMETERS.table_labels,
        ),
    log:
        f"{LOGS}/tables/{{table}}.log",
    wildcard_constraints:
        table=named_of_kind(CONFIG.tables, "ablation"),
    conda:
        "../../environment.yml"
    params:
        rows=lambda wildcards: PARAMETERS.ablation_rows(CONFIG.tables[wildcards.table]),
        n_edits=lambda wildcards: CONFIG.tables[wildcards.table].n_edits,
        data=lambda wildcards: PARAMETERS.data_labels(CONFIG.tables[wildcards.table].models),
        setting=PARAMETERS.table_setting,
        code=code_of("write_ablation.py", "malmen.figures.ablation"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_ablation.py"


rule write_comparison:
    input:
        metrics=lambda wildcards: LAYOUT.comparison_files(CONFIG.tables[wildcards.table]),
        published=lambda wildcards: LAYOUT.published(CONFIG.tables[wildcards.table]),
    output:
        md=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        csv=f"{RESULTS}/tables/{{table}}.csv",
        sources=f"{RESULTS}/tables/{{table}}.sources.json",
        html=report(
            f"{RESULTS}/tables/{{table}}.html",
            caption="../report/comparison.rst",
            category="Comparison with MEND",
            labels=PARAMETERS.table_labels,
        ),
    log:
        f"{LOGS}/tables/{{table}}.log",
    wildcard_constraints:
        table=named_of_kind(CONFIG.tables, "comparison"),
    conda:
        "../../environment.yml"
    params:
        editors=lambda wildcards: CONFIG.tables[wildcards.table].editors,
        n_edits=lambda wildcards: CONFIG.tables[wildcards.table].n_edits,
        data=lambda wildcards: PARAMETERS.data_label(CONFIG.tables[wildcards.table].model),
        setting=PARAMETERS.table_setting,
        code=code_of("write_comparison.py", "malmen.figures.comparison"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_comparison.py"


rule list_failures:
    input:
        trained=LAYOUT.training_of_run,
        covariance=LAYOUT.key_covariance,
        model=edited_model,
        tuples=dataset_file("validation.jsonl"),
    output:
        f"{RESULTS}/failures/{{model}}/{{editor}}/m{{n_edits}}_seed{{seed}}.json",
    log:
        f"{LOGS}/failures/{{model}}/{{editor}}/m{{n_edits}}_seed{{seed}}.log",
    wildcard_constraints:
        n_edits=r"\d+",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **REQUESTS.of("list_failures"),
        gpu=REQUESTS.gpus_of,
    params:
        model=edited_model_spec,
        settings=PARAMETERS.editor,
        machine=PARAMETERS.machine,
        label=PARAMETERS.label,
        code=code_of("list_failures.py", "malmen.jobs.list_failures"),
    message:
        "Listing failures of {params.label}: m = {wildcards.n_edits}, seed {wildcards.seed}"
    script:
        "../scripts/list_failures.py"


rule write_failures:
    input:
        lambda wildcards: LAYOUT.failures_file(CONFIG.tables[wildcards.table]),
    output:
        md=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        csv=f"{RESULTS}/tables/{{table}}.csv",
        sources=f"{RESULTS}/tables/{{table}}.sources.json",
        html=report(
            f"{RESULTS}/tables/{{table}}.html",
            caption="../report/failures.rst",
            category="Failures",
            labels=PARAMETERS.table_labels,
        ),
    log:
        f"{LOGS}/tables/{{table}}.log",
    wildcard_constraints:
        table=named_of_kind(CONFIG.tables, "failures"),
    conda:
        "../../environment.yml"
    params:
        which=lambda wildcards: CONFIG.tables[wildcards.table].prompts,
        records=lambda wildcards: CONFIG.tables[wildcards.table].records,
        data=lambda wildcards: PARAMETERS.data_label(CONFIG.tables[wildcards.table].model),
        setting=PARAMETERS.table_setting,
        code=code_of("write_failures.py", "malmen.figures.failure_table"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_failures.py"
