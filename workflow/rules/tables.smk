# Tables, written from metrics files, files of costs, and the answers that an editor left wrong.


rule tables:
    input:
        collect(f"{RESULTS}/tables/{{table}}.{{suffix}}", table=CONFIG.tables, suffix=["md", "html", "tex", "csv"]),
    message:
        "All tables are up to date"


rule write_table1:
    input:
        lambda _: LAYOUT.ablation_files(CONFIG.table1),
        published=f"{PUBLISHED}/table1.csv",
    output:
        md=f"{RESULTS}/tables/table1.md",
        tex=f"{RESULTS}/tables/table1.tex",
        csv=f"{RESULTS}/tables/table1.csv",
        sources=f"{RESULTS}/tables/table1.sources.json",
        html=report(
            f"{RESULTS}/tables/table1.html",
            caption="../report/table1.rst",
            category="Ablations",
            labels={"table": "Table 1", "model": "BERT and GPT-2", "data": "FEVER and zsRE"},
        ),
    log:
        f"{LOGS}/tables/table1.log",
    conda:
        "../../environment.yml"
    params:
        rows=lambda _: PARAMETERS.ablation_rows(CONFIG.table1),
        n_edits=lambda _: CONFIG.table1.n_edits,
        code=code_of("write_ablation.py", "malmen.figures.ablation"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_ablation.py"


use rule write_table1 as write_table2 with:
    input:
        lambda _: LAYOUT.ablation_files(CONFIG.table2, timed=True),
        published=f"{PUBLISHED}/table2.csv",
    output:
        md=f"{RESULTS}/tables/table2.md",
        tex=f"{RESULTS}/tables/table2.tex",
        csv=f"{RESULTS}/tables/table2.csv",
        sources=f"{RESULTS}/tables/table2.sources.json",
        html=report(
            f"{RESULTS}/tables/table2.html",
            caption="../report/table2.rst",
            category="Ablations",
            labels={"table": "Table 2", "model": "GPT-J", "data": "zsRE"},
        ),
    log:
        f"{LOGS}/tables/table2.log",
    params:
        rows=lambda _: PARAMETERS.ablation_rows(CONFIG.table2, timed=True),
        n_edits=lambda _: CONFIG.table2.n_edits,
        code=code_of("write_ablation.py", "malmen.figures.ablation"),


rule write_table3:
    input:
        metrics=lambda _: LAYOUT.comparison_files(CONFIG.table3),
        published=f"{PUBLISHED}/table3.csv",
    output:
        md=f"{RESULTS}/tables/table3.md",
        tex=f"{RESULTS}/tables/table3.tex",
        csv=f"{RESULTS}/tables/table3.csv",
        sources=f"{RESULTS}/tables/table3.sources.json",
        html=report(
            f"{RESULTS}/tables/table3.html",
            caption="../report/table3.rst",
            category="Comparison with MEND",
            labels={"table": "Table 3", "model": "BART", "data": "zsRE, alternative answers"},
        ),
    log:
        f"{LOGS}/tables/table3.log",
    conda:
        "../../environment.yml"
    params:
        editors=lambda _: CONFIG.table3.editors,
        n_edits=lambda _: CONFIG.table3.n_edits,
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


rule write_table4:
    input:
        lambda _: LAYOUT.failures_file(CONFIG.table4),
    output:
        md=f"{RESULTS}/tables/table4.md",
        tex=f"{RESULTS}/tables/table4.tex",
        csv=f"{RESULTS}/tables/table4.csv",
        sources=f"{RESULTS}/tables/table4.sources.json",
        html=report(
            f"{RESULTS}/tables/table4.html",
            caption="../report/table4.rst",
            category="Failures",
            labels={"table": "Table 4", "model": "T5", "data": "zsRE"},
        ),
    log:
        f"{LOGS}/tables/table4.log",
    conda:
        "../../environment.yml"
    params:
        which="edited",
        records=lambda _: CONFIG.table4.records,
        code=code_of("write_failures.py", "malmen.figures.failure_table"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_failures.py"


use rule write_table4 as write_table5 with:
    input:
        lambda _: LAYOUT.failures_file(CONFIG.table5),
    output:
        md=f"{RESULTS}/tables/table5.md",
        tex=f"{RESULTS}/tables/table5.tex",
        csv=f"{RESULTS}/tables/table5.csv",
        sources=f"{RESULTS}/tables/table5.sources.json",
        html=report(
            f"{RESULTS}/tables/table5.html",
            caption="../report/table5.rst",
            category="Failures",
            labels={"table": "Table 5", "model": "T5", "data": "zsRE"},
        ),
    log:
        f"{LOGS}/tables/table5.log",
    params:
        which="unrelated",
        records=lambda _: CONFIG.table5.records,
        code=code_of("write_failures.py", "malmen.figures.failure_table"),
