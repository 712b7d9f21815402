# Edit tuples, from the synthetic world or from upstream files; both end in the same five files per data set.


rule data:
    input:
        [dataset_file(model, name) for model in CONFIG.models for name in DATASET_FILES],
    message:
        "All data sets are up to date"


rule generate_world:
    output:
        [f"{DATASETS}/world/{dataset}/{name}" for dataset in WORLD_DATASETS for name in DATASET_FILES],
    log:
        f"{LOGS}/data/world.log",
    conda:
        "../../environment.yml"
    params:
        settings=asdict(CONFIG.data.world),
        split=CONFIG.data.split.model_dump(),
        code=code_digest("malmen.data.world"),
    message:
        "Generating the synthetic world"
    script:
        "../scripts/generate_world.py"


rule download_source:
    output:
        "data/raw/{name}",
    log:
        f"{LOGS}/data/{{name}}.log",
    retries: 1
    conda:
        "../../environment.yml"
    params:
        sha256=lambda wildcards: getattr(registry().get(wildcards.name), "sha256", None),
        code=code_digest("malmen.data.sources"),
    message:
        "Fetching {wildcards.name}"
    script:
        "../scripts/download_source.py"


rule build_realtext:
    input:
        edits=lambda wildcards: collect(
            "data/raw/{name}", name=CONFIG.data.realtext.sources(wildcards.dataset, "edits")
        ),
        unrelated=lambda wildcards: collect(
            "data/raw/{name}", name=CONFIG.data.realtext.sources(wildcards.dataset, "unrelated")
        ),
    output:
        [f"{DATASETS}/realtext/{{dataset}}/{name}" for name in [*DATASET_FILES, "counts.json"]],
    log:
        f"{LOGS}/data/realtext_{{dataset}}.log",
    conda:
        "../../environment.yml"
    params:
        seed=CONFIG.data.realtext.seed,
        n_equivalent=CONFIG.data.realtext.n_equivalent,
        split=CONFIG.data.split.model_dump(),
        code=code_digest("malmen.data.realtext"),
    message:
        "Making {wildcards.dataset} tuples from upstream files"
    script:
        "../scripts/build_realtext.py"
