# Memory and costs, the summary of the paper's claims, and the pages on all results.


rule summary:
    input:
        collect(f"{RESULTS}/tables/compute.{{suffix}}", suffix=["md", "html", "tex", "csv"]),
        collect(f"{RESULTS}/summary.{{suffix}}", suffix=["md", "html", "csv"]),
    message:
        "The table of costs and the summary are up to date"


rule measure_memory:
    # Times and sizes differ from run to run.
    input:
        model=lambda wildcards: LAYOUT.edited_model(CONFIG.memory_figures[wildcards.figure].model),
        tuples=lambda wildcards: LAYOUT.dataset_file(CONFIG.memory_figures[wildcards.figure].model, "train.jsonl"),
    output:
        f"{RESULTS}/memory/{{figure}}.cost.json",
    log:
        f"{LOGS}/memory/{{figure}}.log",
    wildcard_constraints:
        figure=named_of_kind(CONFIG.figures, "memory"),
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **REQUESTS.of("measure_memory"),
        gpu=lambda wildcards: REQUESTS.gpus(CONFIG.memory_figures[wildcards.figure].model),
    params:
        model=lambda wildcards: PARAMETERS.edited_model_spec(CONFIG.memory_figures[wildcards.figure].model),
        editors=PARAMETERS.memory_editors,
        n_edits=lambda wildcards: CONFIG.memory_figures[wildcards.figure].n_edits,
        limit_bytes=lambda wildcards: CONFIG.memory_figures[wildcards.figure].limit_bytes,
        machine=PARAMETERS.machine,
        code=code_of("measure_memory.py", "malmen.jobs.measure_memory"),
    message:
        "Measuring the memory of a meta-step for {wildcards.figure}"
    script:
        "../scripts/measure_memory.py"


rule write_compute:
    input:
        costs=LAYOUT.all_costs(),
        published=f"{PUBLISHED}/compute.csv",
    output:
        md=f"{RESULTS}/tables/compute.md",
        tex=f"{RESULTS}/tables/compute.tex",
        csv=f"{RESULTS}/tables/compute.csv",
        sources=f"{RESULTS}/tables/compute.sources.json",
        html=report(
            f"{RESULTS}/tables/compute.html",
            caption="../report/compute.rst",
            category="Analyses",
            labels={"table": "Time and memory", "model": "all", "data": "all"},
        ),
    log:
        f"{LOGS}/tables/compute.log",
    conda:
        "../../environment.yml"
    params:
        editors=PARAMETERS.priced_editors(),
        data=", ".join(PARAMETERS.data_labels(CONFIG.models).values()),
        setting=PARAMETERS.setting(CONFIG.models),
        code=code_of("write_compute.py", "malmen.figures.compute"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_compute.py"


rule write_summary:
    input:
        metrics=LAYOUT.all_metrics(),
        costs=LAYOUT.all_costs(),
        memory=LAYOUT.memory_files(),
        claims=f"{PUBLISHED}/claims.yaml",
    output:
        md=f"{RESULTS}/summary.md",
        csv=f"{RESULTS}/summary.csv",
        sources=f"{RESULTS}/summary.sources.json",
        html=report(
            f"{RESULTS}/summary.html",
            caption="../report/summary.rst",
            category="Summary",
            labels={"table": "The paper's claims", "model": "all", "data": "all"},
        ),
    log:
        f"{LOGS}/summary.log",
    conda:
        "../../environment.yml"
    params:
        editors=PARAMETERS.priced_editors(),
        variants=PARAMETERS.variants(),
        run=CONFIG.run,
        data=", ".join(PARAMETERS.data_labels(CONFIG.models).values()),
        setting=PARAMETERS.setting(CONFIG.models),
        links=PARAMETERS.links(),
        code=code_of("write_summary.py", "malmen.figures.summary"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_summary.py"


rule explorer:
    input:
        LAYOUT.explorer(),
    message:
        up_to_date("pages to look through", LAYOUT.explorer())


rule write_explorer:
    input:
        metrics=LAYOUT.all_metrics(),
        answers=LAYOUT.all_answers(),
    output:
        html=f"{RESULTS}/explorer.html",
        sources=f"{RESULTS}/explorer.sources.json",
    log:
        f"{LOGS}/explorer.log",
    conda:
        "../../environment.yml"
    params:
        explored=PARAMETERS.explored(),
        code=code_of("write_explorer.py", "malmen.figures.explorer.page"),
    message:
        "Writing {output.html}"
    script:
        "../scripts/write_explorer.py"


rule write_index:
    input:
        collect(f"{RESULTS}/figures/{{figure}}.{{suffix}}", figure=CONFIG.figures, suffix=FIGURE_FILES),
        [
            file
            for file in collect(
                f"{RESULTS}/tables/{{table}}.{{suffix}}", table=[*CONFIG.tables, "compute"], suffix=TABLE_FILES
            )
            if file not in LAYOUT.quoting_files()
        ],
        summary=collect(f"{RESULTS}/summary.{{suffix}}", suffix=["csv", "sources.json"]),
        claims=f"{PUBLISHED}/claims.yaml",
        later=LAYOUT.after_malmen("csv") + LAYOUT.after_malmen("sources.json"),
        later_claims=[f"{PUBLISHED}/later_claims.yaml"] * len(LAYOUT.after_malmen("csv")),
    output:
        f"{RESULTS}/index.html",
    log:
        f"{LOGS}/index.log",
    conda:
        "../../environment.yml"
    params:
        run=CONFIG.run,
        data=", ".join(PARAMETERS.data_labels(CONFIG.models).values()),
        setting=PARAMETERS.setting(CONFIG.models),
        results=PARAMETERS.results(),
        quoting=PARAMETERS.quoting(),
        explorer=PARAMETERS.shows_explorer(),
        code=code_of("write_index.py", "malmen.figures.index"),
    message:
        "Writing {output}"
    script:
        "../scripts/write_index.py"
