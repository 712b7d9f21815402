# Figures and tables, drawn from metrics files alone.


rule figures:
    input:
        collect(f"{RESULTS}/figures/{{figure}}.{{suffix}}", figure=dict(CONFIG.figures), suffix=["pdf", "png", "csv"]),
    message:
        "All figures are up to date"


rule tables:
    input:
        collect(f"{RESULTS}/tables/table1.{{suffix}}", suffix=["md", "html", "tex", "csv"]),
    message:
        "All tables are up to date"


rule draw_figure4:
    input:
        metrics=curve_files("figure4"),
    output:
        pdf=f"{RESULTS}/figures/figure4.pdf",
        png=report(
            f"{RESULTS}/figures/figure4.png",
            caption="../report/figure4.rst",
            category="Scaling curves",
            labels={"figure": "Figure 4", "model": "BERT", "data": "FEVER"},
        ),
        csv=f"{RESULTS}/figures/figure4.csv",
    log:
        f"{LOGS}/figures/figure4.log",
    conda:
        "../../environment.yml"
    params:
        title=lambda _: CONFIG.models[CONFIG.figures.figure4.model].label,
        code=code_digest("malmen.figures.scaling"),
    message:
        "Drawing {output.pdf}"
    script:
        "../scripts/draw_scaling.py"


use rule draw_figure4 as draw_figure5 with:
    input:
        metrics=curve_files("figure5"),
    output:
        pdf=f"{RESULTS}/figures/figure5.pdf",
        png=report(
            f"{RESULTS}/figures/figure5.png",
            caption="../report/figure5.rst",
            category="Scaling curves",
            labels={"figure": "Figure 5", "model": "GPT-2", "data": "zsRE"},
        ),
        csv=f"{RESULTS}/figures/figure5.csv",
    log:
        f"{LOGS}/figures/figure5.log",
    params:
        title=lambda _: CONFIG.models[CONFIG.figures.figure5.model].label,
        code=code_digest("malmen.figures.scaling"),


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
