# Figures, drawn from metrics files alone.


rule figures:
    input:
        collect(f"{RESULTS}/figures/{{figure}}.{{suffix}}", figure=dict(CONFIG.figures), suffix=["pdf", "png", "csv"]),
    message:
        "All figures are up to date"


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
