# Edit tuples from the synthetic world or from upstream files: the same five files per data set.


rule data:
    input:
        [LAYOUT.dataset_file(model, name) for model in CONFIG.models for name in DATASET_FILES],
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
        texts=sha256(WORLD_TEXTS),
        code=code_of("generate_world.py", "malmen.data.world"),
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
        checksum=lambda wildcards: getattr(upstream_files().get(wildcards.name), "checksum", None),
        code=code_of("download_source.py", "malmen.data.download"),
    message:
        "Fetching {wildcards.name}"
    script:
        "../scripts/download_source.py"


rule build_realtext:
    input:
        edits=lambda wildcards: LAYOUT.raw_files(CONFIG.data.realtext.sources(wildcards.dataset, "edits")),
        unrelated=lambda wildcards: LAYOUT.raw_files(CONFIG.data.realtext.sources(wildcards.dataset, "unrelated")),
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
        code=code_of("build_realtext.py", "malmen.data.realtext"),
    message:
        "Making {wildcards.dataset} tuples from upstream files"
    script:
        "../scripts/build_realtext.py"


rule convert_authors:
    input:
        lambda wildcards: LAYOUT.raw_files(CONFIG.data.upstream(wildcards.dataset)),
    output:
        [f"{DATASETS}/authors/{{dataset}}/{name}" for name in [*DATASET_FILES, "counts.json"]],
    log:
        f"{LOGS}/data/authors_{{dataset}}.log",
    conda:
        "../../environment.yml"
    params:
        source="authors",
        # The paper's numbers of records, which the files must have.
        records=lambda wildcards: [upstream_files()[name].records for name in CONFIG.data.upstream(wildcards.dataset)],
        split=CONFIG.data.split.model_dump(),
        shared_unrelated=CONFIG.data.shared_unrelated,
        code=code_of("convert_tuples.py", "malmen.data.authors"),
    message:
        "Making {wildcards.dataset} tuples from the authors' files"
    script:
        "../scripts/convert_tuples.py"


use rule convert_authors as convert_mend with:
    output:
        [f"{DATASETS}/mend/{{dataset}}/{name}" for name in [*DATASET_FILES, "counts.json"]],
    log:
        f"{LOGS}/data/mend_{{dataset}}.log",
    params:
        source="mend",
        records=[None, None],
        split=CONFIG.data.split.model_dump(),
        shared_unrelated=CONFIG.data.shared_unrelated,
        code=code_of("convert_tuples.py", "malmen.data.mend"),
    message:
        "Making {wildcards.dataset} tuples from MEND's files"


rule build_own_data:
    input:
        facts=lambda wildcards: CONFIG.data.files.facts,
        unrelated=lambda wildcards: CONFIG.data.files.unrelated or [],
    output:
        [f"{DATASETS}/files/own/{name}" for name in [*DATASET_FILES, "counts.json"]],
    log:
        f"{LOGS}/data/own.log",
    conda:
        "../../environment.yml"
    params:
        reading=CONFIG.data.files.model_dump(include={"answers", "skip_bad", "seed"}),
        split=CONFIG.data.split.model_dump(),
        shared_unrelated=CONFIG.data.shared_unrelated,
        code=code_of("build_own_data.py", "malmen.data.own_data"),
    message:
        "Making tuples from own files"
    script:
        "../scripts/build_own_data.py"
