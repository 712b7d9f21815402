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
    threads: REQUESTS.threads_of_ranks
    resources:
        **REQUESTS.of("edit_in_rounds"),
        gpu=REQUESTS.gpus_of_ranks,
    params:
        model=edited_model_spec,
        settings=PARAMETERS.editor,
        rounds=PARAMETERS.rounds,
        seeds=lambda wildcards: numbers(wildcards.seeds),
        n_decoded=CONFIG.evaluation.decoded,
        n_texts=CONFIG.evaluation.perplexity_texts,
        machine=PARAMETERS.machine_of_ranks,
        label=PARAMETERS.label,
        state=f"{STATES}/rounds/{{model}}/{{editor}}/{{rounds}}_seed{{seeds}}",
        code=code_of("edit_in_rounds.py", "malmen.jobs.edit_in_rounds"),
    message:
        "Editing in rounds with {params.label}: {wildcards.rounds}, seed {wildcards.seeds}"
    script:
        "../scripts/edit_in_rounds.py"


rule draw_rounds:
    input:
        rounds=lambda wildcards: LAYOUT.rounds_shown(CONFIG.figures[wildcards.figure]),
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/rounds.rst",
            category="Rounds",
            labels=PARAMETERS.figure_labels,
        ),
        csv=f"{RESULTS}/figures/{{figure}}.csv",
        sources=f"{RESULTS}/figures/{{figure}}.sources.json",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure=named_of_kind(CONFIG.figures, "rounds"),
    conda:
        "../../environment.yml"
    params:
        title=PARAMETERS.figure_title,
        setting=PARAMETERS.figure_setting,
        total=lambda wildcards: CONFIG.figures[wildcards.figure].total,
        code=code_of("draw_rounds.py", "malmen.figures.rounds"),
    message:
        "Drawing {output.pdf}"
    script:
        "../scripts/draw_rounds.py"


rule draw_course:
    input:
        rounds=lambda wildcards: LAYOUT.rounds_shown(CONFIG.figures[wildcards.figure]),
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/course.rst",
            category="Rounds",
            labels=PARAMETERS.figure_labels,
        ),
        csv=f"{RESULTS}/figures/{{figure}}.csv",
        sources=f"{RESULTS}/figures/{{figure}}.sources.json",
    log:
        f"{LOGS}/figures/{{figure}}.log",
    wildcard_constraints:
        figure=named_of_kind(CONFIG.figures, "course"),
    conda:
        "../../environment.yml"
    params:
        title=PARAMETERS.figure_title,
        setting=PARAMETERS.figure_setting,
        rounds=lambda wildcards: CONFIG.figures[wildcards.figure].rounds,
        code=code_of("draw_course.py", "malmen.figures.course"),
    message:
        "Drawing {output.pdf}"
    script:
        "../scripts/draw_course.py"


rule write_rounds_table:
    input:
        rounds=lambda wildcards: LAYOUT.rounds_shown(CONFIG.tables[wildcards.table]),
    output:
        md=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        csv=f"{RESULTS}/tables/{{table}}.csv",
        sources=f"{RESULTS}/tables/{{table}}.sources.json",
        html=report(
            f"{RESULTS}/tables/{{table}}.html",
            caption="../report/rounds_table.rst",
            category="Rounds",
            labels=PARAMETERS.table_labels,
        ),
    log:
        f"{LOGS}/tables/{{table}}.log",
    wildcard_constraints:
        table=named_of_kind(CONFIG.tables, "rounds"),
    conda:
        "../../environment.yml"
    params:
        rows=lambda wildcards: PARAMETERS.rounds_rows(CONFIG.tables[wildcards.table]),
        measures=lambda wildcards: CONFIG.tables[wildcards.table].measures,
        rounds=lambda wildcards: CONFIG.tables[wildcards.table].rounds,
        data=lambda wildcards: PARAMETERS.data_label(CONFIG.tables[wildcards.table].model),
        setting=PARAMETERS.table_setting,
        code=code_of("write_rounds_table.py", "malmen.figures.rounds_table"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_rounds_table.py"


rule write_rounds_costs:
    input:
        lambda wildcards: PARAMETERS.rounds_costs_files(CONFIG.tables[wildcards.table]),
    output:
        md=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        csv=f"{RESULTS}/tables/{{table}}.csv",
        sources=f"{RESULTS}/tables/{{table}}.sources.json",
        html=report(
            f"{RESULTS}/tables/{{table}}.html",
            caption="../report/rounds_costs.rst",
            category="Rounds",
            labels=PARAMETERS.table_labels,
        ),
    log:
        f"{LOGS}/tables/{{table}}.log",
    wildcard_constraints:
        table=named_of_kind(CONFIG.tables, "rounds_costs"),
    conda:
        "../../environment.yml"
    params:
        editors=lambda wildcards: PARAMETERS.priced_in_rounds(CONFIG.tables[wildcards.table]),
        model=lambda wildcards: CONFIG.models[CONFIG.tables[wildcards.table].model].label,
        rounds=lambda wildcards: CONFIG.tables[wildcards.table].rounds,
        data=lambda wildcards: PARAMETERS.data_label(CONFIG.tables[wildcards.table].model),
        setting=PARAMETERS.table_setting,
        code=code_of("write_rounds_costs.py", "malmen.figures.rounds_costs"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_rounds_costs.py"


rule write_published:
    input:
        rounds=lambda wildcards: LAYOUT.rounds_shown(CONFIG.tables[wildcards.table]),
        published=lambda wildcards: LAYOUT.published(CONFIG.tables[wildcards.table]),
    output:
        md=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        csv=f"{RESULTS}/tables/{{table}}.csv",
        sources=f"{RESULTS}/tables/{{table}}.sources.json",
        html=report(
            f"{RESULTS}/tables/{{table}}.html",
            caption="../report/published_rounds.rst",
            category="Rounds",
            labels=PARAMETERS.table_labels,
        ),
    log:
        f"{LOGS}/tables/{{table}}.log",
    wildcard_constraints:
        table=named_of_kind(CONFIG.tables, "published_rounds"),
    conda:
        "../../environment.yml"
    params:
        editors=lambda wildcards: CONFIG.tables[wildcards.table].editors,
        rounds=lambda wildcards: CONFIG.tables[wildcards.table].rounds,
        data=lambda wildcards: PARAMETERS.data_label(CONFIG.tables[wildcards.table].model),
        setting=PARAMETERS.table_setting,
        code=code_of("write_published.py", "malmen.figures.published_rounds"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_published.py"


rule write_moved:
    input:
        lambda wildcards: [
            folder for editor in PARAMETERS.moved(CONFIG.tables[wildcards.table]) for folder in editor["folders"]
        ],
    output:
        md=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        csv=f"{RESULTS}/tables/{{table}}.csv",
        sources=f"{RESULTS}/tables/{{table}}.sources.json",
        html=report(
            f"{RESULTS}/tables/{{table}}.html",
            caption="../report/moved.rst",
            category="Rounds",
            labels=PARAMETERS.table_labels,
        ),
    log:
        f"{LOGS}/tables/{{table}}.log",
    wildcard_constraints:
        table=named_of_kind(CONFIG.tables, "moved"),
    conda:
        "../../environment.yml"
    params:
        editors=lambda wildcards: PARAMETERS.moved(CONFIG.tables[wildcards.table]),
        n_edits=lambda wildcards: CONFIG.tables[wildcards.table].n_edits,
        data=lambda wildcards: PARAMETERS.data_label(CONFIG.tables[wildcards.table].model),
        setting=PARAMETERS.table_setting,
        code=code_of("write_moved.py", "malmen.figures.moved_table"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_moved.py"


rule write_after_malmen:
    input:
        rounds=LAYOUT.all_rounds(),
        claims=f"{PUBLISHED}/later_claims.yaml",
    output:
        md=f"{RESULTS}/after_malmen.md",
        csv=f"{RESULTS}/after_malmen.csv",
        sources=f"{RESULTS}/after_malmen.sources.json",
        html=report(
            f"{RESULTS}/after_malmen.html",
            caption="../report/after_malmen.rst",
            category="Summary",
            labels={"table": "Claims about editing in rounds", "model": "all", "data": "all"},
        ),
    log:
        f"{LOGS}/after_malmen.log",
    conda:
        "../../environment.yml"
    params:
        models={name: model.label for name, model in CONFIG.models.items()},
        run=CONFIG.run,
        data=", ".join(PARAMETERS.data_labels(CONFIG.models).values()),
        setting=PARAMETERS.setting(CONFIG.models),
        links={name: page for name, page in PARAMETERS.links().items() if page != "after_malmen.html"},
        code=code_of("write_after_malmen.py", "malmen.figures.after_malmen"),
    message:
        "Writing {output.md}"
    script:
        "../scripts/write_after_malmen.py"
