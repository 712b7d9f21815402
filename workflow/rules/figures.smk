# Figures, drawn from metrics files only.


rule figures:
    input:
        collect(f"{RESULTS}/figures/{{figure}}.{{suffix}}", figure=CONFIG.figures, suffix=["pdf", "png", "csv"]),
    message:
        up_to_date("figures", CONFIG.figures)


rule draw_scaling:
    input:
        metrics=lambda wildcards: LAYOUT.curve_files(wildcards.figure),
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/scaling.rst",
            category="Scaling curves",
            labels=PARAMETERS.figure_labels,
        ),
        csv=f"{RESULTS}/figures/{{figure}}.csv",
        sources=f"{RESULTS}/figures/{{figure}}.sources.json",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure=named_of_kind(CONFIG.figures, "scaling"),
    conda:
        "../../environment.yml"
    params:
        title=PARAMETERS.figure_title,
        setting=PARAMETERS.figure_setting,
        n_edits=PARAMETERS.curve_n_edits,
        dataset=lambda wildcards: CONFIG.models[PARAMETERS.curve(wildcards).model].dataset,
        code=code_of("draw_scaling.py", "malmen.figures.scaling"),
    message:
        "Drawing {output.pdf}"
    script:
        "../scripts/draw_scaling.py"


rule draw_residual:
    input:
        metrics=lambda wildcards: LAYOUT.curve_files(wildcards.figure),
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/residual.rst",
            category="Analyses",
            labels=PARAMETERS.figure_labels,
        ),
        csv=f"{RESULTS}/figures/{{figure}}.csv",
        sources=f"{RESULTS}/figures/{{figure}}.sources.json",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure=named_of_kind(CONFIG.figures, "residual"),
    conda:
        "../../environment.yml"
    params:
        title=PARAMETERS.figure_title,
        setting=PARAMETERS.figure_setting,
        n_edits=PARAMETERS.curve_n_edits,
        code=code_of("draw_residual.py", "malmen.figures.residual"),
    message:
        "Drawing {output.pdf}"
    script:
        "../scripts/draw_residual.py"


rule draw_memory:
    input:
        memory=lambda wildcards: LAYOUT.memory_file(wildcards.figure),
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/memory.rst",
            category="Analyses",
            labels=PARAMETERS.figure_labels,
        ),
        csv=f"{RESULTS}/figures/{{figure}}.csv",
        sources=f"{RESULTS}/figures/{{figure}}.sources.json",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure=named_of_kind(CONFIG.figures, "memory"),
    conda:
        "../../environment.yml"
    params:
        title=PARAMETERS.figure_title,
        setting=PARAMETERS.figure_setting,
        labels=PARAMETERS.memory_labels,
        code=code_of("draw_memory.py", "malmen.figures.memory_figure"),
    message:
        "Drawing {output.pdf}"
    script:
        "../scripts/draw_memory.py"
