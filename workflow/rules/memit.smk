# What MEMIT needs beside the model: second moments of the keys of the layers that it edits, once per model and editor.


def statistics_text(wildcards):
    """The text on which second moments are estimated, as a list: the configured file, the data set's; none if streamed."""
    settings = CONFIG.models[wildcards.model].editors[wildcards.editor].memit.statistics
    if settings.source == "wikipedia":
        return []
    return [settings.path or dataset_file(wildcards.model, "text.txt")]


def statistics_settings(wildcards):
    """The settings of an editor that its second moments depend on: how it edits makes no new ones necessary."""
    settings = CONFIG.models[wildcards.model].editors[wildcards.editor]
    kept = {name: getattr(settings, name) for name in ("label", "method", "ffn_layers", "blocks")}
    return {**kept, "memit": {"statistics": asdict(settings.memit.statistics)}}


rule collect_statistics:
    input:
        model=lambda wildcards: edited_model(wildcards.model),
        text=statistics_text,
    output:
        f"{RESULTS}/editors/{{model}}/{{editor}}/second_moments.safetensors",
    log:
        f"{LOGS}/editors/{{model}}/{{editor}}/second_moments.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        gpu=GPU,
    params:
        subject=lambda wildcards: subject(wildcards.model),
        settings=statistics_settings,
        machine=machine(),
        label=label,
        code=code_digest("malmen.steps.statistics"),
    message:
        "Collecting second moments for {params.label}"
    script:
        "../scripts/collect_statistics.py"
