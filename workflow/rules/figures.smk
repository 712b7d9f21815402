# Figures and tables, drawn from metrics files alone.


rule figures:
    input:
        collect(f"{RESULTS}/figures/{{figure}}.{{suffix}}", figure=CONFIG.figures.names, suffix=["pdf", "png", "csv"]),
    message:
        "All figures are up to date"


rule tables:
    input:
        collect(f"{RESULTS}/tables/table1.{{suffix}}", suffix=["md", "html", "tex", "csv"]),
    message:
        "All tables are up to date"


rule draw_scaling:
    input:
        metrics=lambda wildcards: curve_files(wildcards.figure),
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/scaling.rst",
            category="Scaling curves",
            labels=curve_labels,
        ),
        csv=f"{RESULTS}/figures/{{figure}}.csv",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure=one_of(SCALING),
    conda:
        "../../environment.yml"
    params:
        title=lambda wildcards: curve_model(wildcards).label,
        dataset=lambda wildcards: curve_model(wildcards).dataset,
        code=code_digest("malmen.figures.scaling"),
    message:
        "Drawing {output.pdf}"
    script:
        "../scripts/draw_scaling.py"


rule draw_residual:
    input:
        metrics=lambda wildcards: curve_files(wildcards.figure),
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/residual.rst",
            category="Analyses",
            labels=curve_labels,
        ),
        csv=f"{RESULTS}/figures/{{figure}}.csv",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure=one_of(set(CONFIG.figures.names) & {"figure8"}),
    conda:
        "../../environment.yml"
    params:
        title=lambda wildcards: curve_model(wildcards).label,
        code=code_digest("malmen.figures.residual"),
    message:
        "Drawing {output.pdf}"
    script:
        "../scripts/draw_residual.py"


rule draw_memory:
    input:
        memory=memory_files(),
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/memory.rst",
            category="Analyses",
            labels=lambda wildcards: figure_labels(wildcards.figure, CONFIG.figures.figure9.model),
        ),
        csv=f"{RESULTS}/figures/{{figure}}.csv",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure=one_of(set(CONFIG.figures.names) & {"figure9"}),
    conda:
        "../../environment.yml"
    params:
        title=lambda _: CONFIG.models[CONFIG.figures.figure9.model].label,
        labels=memory_labels,
        code=code_digest("malmen.figures.memory"),
    message:
        "Drawing {output.pdf}"
    script:
        "../scripts/draw_memory.py"


rule write_table1:
    input:
        metrics=[file for row in CONFIG.table1.rows for file in row_files(row)],
        published=f"{PUBLISHED}/table1.csv",
    output:
        md=f"{RESULTS}/tables/table1.md",
        tex=f"{RESULTS}/tables/table1.tex",
        csv=f"{RESULTS}/tables/table1.csv",
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
        rows=[{**row.model_dump(), "metrics": row_files(row)} for row in CONFIG.table1.rows],
        n_edits=CONFIG.table1.n_edits,
        code=code_digest("malmen.figures.ablation"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_table1.py"
