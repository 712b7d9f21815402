# The paper's data, rebuilt from KILT, FEVER 2.0 and NQ-open. Each rule reports what it dropped and why.


rule select_originals:
    input:
        train=lambda wildcards: LAYOUT.raw_files(CONFIG.data.rebuild.sources(wildcards.corpus, "train")),
        validation=lambda wildcards: LAYOUT.raw_files(CONFIG.data.rebuild.sources(wildcards.corpus, "validation")),
    output:
        originals=f"{LAYOUT.steps}/originals.jsonl",
        report=f"{LAYOUT.steps}/originals.report.json",
    log:
        f"{LOGS}/data/select_{{corpus}}.log",
    conda:
        "../../environment.yml"
    params:
        code=code_of("select_originals.py", "malmen.data.rebuild"),
    message:
        "Selecting the originals of {wildcards.corpus}"
    script:
        "../scripts/select_originals.py"


rule list_finetuning_data:
    input:
        originals=lambda wildcards: LAYOUT.steps_of(wildcards.dataset)["originals"],
        unrelated=lambda wildcards: LAYOUT.raw_files(CONFIG.data.rebuild.sources(wildcards.dataset, "unrelated")),
    output:
        [f"{LAYOUT.rebuilt}/{{dataset}}/{name}" for name in ("finetune.jsonl", "text.txt")],
    log:
        f"{LOGS}/data/finetuning_{{dataset}}.log",
    conda:
        "../../environment.yml"
    params:
        code=code_of("list_finetuning_data.py", "malmen.data.rebuild"),
    message:
        "Listing the fine-tuning data of {wildcards.dataset}"
    script:
        "../scripts/list_finetuning_data.py"


rule fetch_translator:
    output:
        directory(f"{LAYOUT.rebuilt}/translators/{{direction}}"),
    log:
        f"{LOGS}/data/translator_{{direction}}.log",
    retries: 2
    conda:
        "../../environment.yml"
    params:
        hub_id=lambda wildcards: CONFIG.data.rebuild.translation.source(wildcards.direction).hub_id,
        revision=lambda wildcards: CONFIG.data.rebuild.translation.source(wildcards.direction).revision,
        sha256=lambda wildcards: CONFIG.data.rebuild.translation.source(wildcards.direction).sha256,
        package=None,
        pickle=None,
        code=code_of("fetch_model.py", "malmen.models.hub", "malmen.models.package"),
    message:
        "Fetching {params.hub_id}"
    script:
        "../scripts/fetch_model.py"


rule back_translate:
    input:
        originals=f"{LAYOUT.steps}/originals.jsonl",
        forward=LAYOUT.translator("forward"),
        backward=LAYOUT.translator("backward"),
    output:
        rephrasings=f"{LAYOUT.steps}/translated/{{part}}.jsonl",
        report=f"{LAYOUT.steps}/translated/{{part}}.report.json",
    log:
        f"{LOGS}/data/translate_{{corpus}}_{{part}}.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **REQUESTS.of("back_translate"),
        gpu=int(CONFIG.device == "cuda"),
    params:
        settings=asdict(CONFIG.data.rebuild.translation),
        machine=PARAMETERS.machine,
        code=code_of("back_translate.py", "malmen.jobs.back_translate"),
    message:
        "Back-translating {wildcards.corpus}, part {wildcards.part}"
    script:
        "../scripts/back_translate.py"


rule filter_rephrasings:
    input:
        originals=f"{LAYOUT.steps}/originals.jsonl",
        rephrasings=f"{LAYOUT.steps}/translated/{{part}}.jsonl",
        model=lambda wildcards: LAYOUT.edited_model(LAYOUT.filtering_model(wildcards.corpus)),
    output:
        rephrasings=f"{LAYOUT.steps}/filtered/{{part}}.jsonl",
        report=f"{LAYOUT.steps}/filtered/{{part}}.report.json",
    log:
        f"{LOGS}/data/filter_{{corpus}}_{{part}}.log",
    conda:
        "../../environment.yml"
    threads: CONFIG.threads
    resources:
        **REQUESTS.of("filter_rephrasings"),
        gpu=lambda wildcards: REQUESTS.gpus(LAYOUT.filtering_model(wildcards.corpus)),
    params:
        model=lambda wildcards: PARAMETERS.edited_model_spec(LAYOUT.filtering_model(wildcards.corpus)),
        batch_size=CONFIG.data.rebuild.filter_batch_size,
        machine=PARAMETERS.machine,
        code=code_of("filter_rephrasings.py", "malmen.jobs.filter_rephrasings"),
    message:
        "Filtering the rephrasings of {wildcards.corpus}, part {wildcards.part}"
    script:
        "../scripts/filter_rephrasings.py"


rule choose_alternatives:
    input:
        originals=f"{LAYOUT.steps}/originals.jsonl",
    output:
        alternatives=f"{LAYOUT.steps}/alternatives.jsonl",
        report=f"{LAYOUT.steps}/alternatives.report.json",
    log:
        f"{LOGS}/data/alternatives_{{corpus}}.log",
    conda:
        "../../environment.yml"
    params:
        seed=CONFIG.data.rebuild.seed,
        code=code_of("choose_alternatives.py", "malmen.data.rebuild"),
    message:
        "Choosing wrong answers for {wildcards.corpus}"
    script:
        "../scripts/choose_alternatives.py"


rule pair_tuples:
    input:
        unpack(lambda wildcards: LAYOUT.steps_of(wildcards.dataset)),
        reports=lambda wildcards: [file for files in LAYOUT.reports_of(wildcards.dataset).values() for file in files],
        unrelated=lambda wildcards: LAYOUT.raw_files(CONFIG.data.rebuild.sources(wildcards.dataset, "unrelated")),
    output:
        [f"{LAYOUT.rebuilt}/{{dataset}}/{name}" for name in [*DATASET_FILES[:3], "counts.json", "counts.md"]],
    log:
        f"{LOGS}/data/pair_{{dataset}}.log",
    conda:
        "../../environment.yml"
    params:
        reports=lambda wildcards: LAYOUT.reports_of(wildcards.dataset),
        seed=CONFIG.data.rebuild.seed,
        split=CONFIG.data.split.model_dump(),
        code=code_of("pair_tuples.py", "malmen.data.rebuild"),
    message:
        "Making {wildcards.dataset} tuples from the rebuilt data"
    script:
        "../scripts/pair_tuples.py"
