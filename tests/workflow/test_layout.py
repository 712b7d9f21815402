"""Paths of the workflow, by the configurations that it ships with; neither Snakemake nor torch is loaded."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wildcards import Wildcards

from malmen.config.load import load, load_file
from malmen.config.outputs import Ablation, Comparison, Failures
from malmen.errors import UserError
from malmen.runtime.text import joined, numbers
from malmen.workflow.layout import Layout, n_edits_in, one_of

CONFIGURATIONS = Path(__file__).parents[2] / "config"


def changed(name: str, **sections: Any) -> Layout:
    raw = yaml.safe_load((CONFIGURATIONS / f"{name}.yaml").read_text(encoding="utf-8"))
    return Layout(load({**raw, **sections}))


@pytest.fixture(scope="module")
def demo() -> Layout:
    return Layout(load_file(CONFIGURATIONS / "demo.yaml"))


@pytest.fixture(scope="module")
def tiny() -> Layout:
    return Layout(load_file(CONFIGURATIONS / "test.yaml"))


@pytest.fixture(scope="module")
def paper() -> Layout:
    return Layout(load_file(CONFIGURATIONS / "paper.yaml"))


@pytest.fixture(scope="module")
def rebuilt() -> Layout:
    raw = yaml.safe_load((CONFIGURATIONS / "test.yaml").read_text(encoding="utf-8"))
    settings = {"parts": 2, "filter": {"fever": "bert"}}
    return Layout(load({**raw, "data": {"source": "rebuild", "rebuild": settings}}))


def test_what_quotes_records_of_a_real_data_set(tiny: Layout) -> None:
    assert tiny.quoting_files() == []  # The synthetic world is our own.
    real = changed("test", data={"source": "rebuild"})
    assert real.quoting_tables() == ["table4", "table5"]
    pages = [
        f"results/test/tables/{name}.{kind}" for name in ("table4", "table5") for kind in ("md", "html", "tex", "csv")
    ]
    failures = "results/test/failures/gpt2/malmen/m16_seed0.json"
    assert real.quoting_files() == [failures, *pages, *real.all_answers(), "results/test/explorer.html"]
    assert len(real.all_answers()) > 5
    none = changed("test", data={"source": "rebuild"}, evaluation={"max_groups": 2, "answers": 0})
    assert none.quoting_files() == [failures, *pages]


def test_numbers_are_joined_and_read_again() -> None:
    assert joined([4, 16]) == "4-16" and numbers("4-16") == [4, 16] and numbers("8") == [8]
    assert n_edits_in("results/demo/metrics/tune/bert/ft/m16-32_seed0-1.json") == [16, 32]


def test_no_names_match_nothing() -> None:
    assert one_of(["a", "b"]) == "a|b"
    assert one_of([]) == "(?!)"


def test_a_data_set_lies_below_its_run_and_source(demo: Layout, paper: Layout) -> None:
    assert demo.dataset_file("bert", "train.jsonl") == "data/demo/world/fever/train.jsonl"
    assert paper.dataset_file("bart", "train.jsonl") == "data/paper/authors/zsre_alternative/train.jsonl"


def test_a_base_model_is_trained_here_or_fetched_or_local(demo: Layout, paper: Layout, tmp_path: Path) -> None:
    assert demo.base_model("bert") == "results/demo/models/bert/pretrained"
    assert paper.base_model("gpt2") == paper.edited_model("gpt2") == "results/paper/models/gpt2/fetched"
    raw = yaml.safe_load((CONFIGURATIONS / "paper.yaml").read_text(encoding="utf-8"))
    raw["models"]["t5"] |= {"pretrained": str(tmp_path), "editors": {}}
    (tmp_path / "config.json").write_text("{}")
    raw |= {"figures": {}, "tables": {}}
    assert Layout(load(raw)).base_model("t5") == str(tmp_path)


def test_a_fine_tuned_model_is_edited_where_there_is_one(tiny: Layout) -> None:
    assert tiny.edited_model("bert") != tiny.base_model("bert")
    assert tiny.edited_model("gpt2_alternative") == tiny.base_model("gpt2_alternative")


def test_jobs_take_several_m_and_seeds(demo: Layout) -> None:
    assert demo.jobs("gpt2", "malmen") == ["m2-8-32-64_seed0-1"]
    assert changed("demo", jobs={}).jobs("bart", "mend") == [f"m{m}_seed{seed}" for m in (5, 25, 75) for seed in (0, 1)]
    assert changed("demo", jobs={}).jobs("bart", "mend", [25]) == ["m25_seed0", "m25_seed1"]


def test_from_a_large_m_on_the_first_seed_alone_is_run() -> None:
    layout = changed("demo", one_seed_from=32, jobs={"n_edits_per_job": 3, "seeds_per_job": 2})
    assert layout.job_names([2, 8, 32, 64]) == ["m2-8_seed0-1", "m32-64_seed0"]
    split = changed("demo", one_seed_from=32, jobs={"n_edits_per_job": 3})
    assert split.job_names([8, 32]) == ["m8_seed0", "m8_seed1", "m32_seed0"]


def test_only_hyper_networks_are_trained(tiny: Layout) -> None:
    assert tiny.trained_editors("bert", "malmen") == ["results/test/editors/bert/malmen/m4-16_seed0"]
    assert tiny.trained_editors("bert", "ft") == [] != tiny.metrics_files("bert", "ft")
    costs = tiny.cost_files("gpt2", "memit")
    assert costs == {"training": [], "editing": ["results/test/metrics/validation/gpt2/memit/m16_seed0.cost.json"]}


def test_answers_are_kept_beside_metrics_and_looked_through_on_one_page(tiny: Layout) -> None:
    answers = tiny.answers_files("gpt2", "memit")
    assert answers == ["results/test/metrics/validation/gpt2/memit/m16_seed0.answers.json"]
    assert len(tiny.all_answers()) == len(tiny.all_metrics()) > 1 and set(answers) < set(tiny.all_answers())
    assert tiny.explorer() == ["results/test/explorer.html"]
    none = changed("test", evaluation={"answers": 0})
    assert none.all_answers() == [] and none.explorer() == tiny.explorer()
    assert changed("test", figures={}, tables={}).explorer() == []


def test_a_measurement_finds_its_training(demo: Layout) -> None:
    (folder,) = demo.trained_editors("gpt2", "malmen")
    assert demo.training_of(Wildcards(n_edits="2-8-32-64", seeds="0-1")) == [folder]
    assert demo.training_of(Wildcards(editor="memit")) == demo.training_of_run(Wildcards(editor="ft")) == []
    assert demo.training_of_run(Wildcards(n_edits="32", seed="1")) == [folder]
    assert demo.training_of_run(Wildcards(n_edits="32", seed="2")) == []


def test_editors_that_differ_in_rounds_alone_share_their_training_and_covariance() -> None:
    lifelong = Layout(load_file(CONFIGURATIONS / "lifelong.yaml"))
    (folder,) = lifelong.trained_editors("gpt2", "malmen")
    assert folder == "results/lifelong/editors/gpt2/malmen/m8-64-512_seed0-1"
    for name in ("malmen_running", "malmen_memory", "malmen_retrained"):
        assert lifelong.trained_editors("gpt2", name) == [folder]
    trained = {Path(file).parts[4] for file in lifelong.all_editors()}
    assert trained == {"malmen", "mend", "rledit_released", "rledit_one_step", "rledit_many_steps", "memit"}
    assert lifelong.covariance_of("gpt2", "alphaedit") == lifelong.covariance_of("gpt2", "memit")
    other = changed("lifelong", jobs={"n_edits_per_job": 1})
    assert other.trained_for_rounds(Wildcards(editor="malmen_memory", rounds="8x64", seeds="0-1")) == [
        f"results/lifelong/editors/gpt2/malmen/m64_seed{seed}" for seed in (0, 1)
    ]


def test_rounds_are_edited_in_jobs_of_several(tiny: Layout) -> None:
    lifelong = Layout(load_file(CONFIGURATIONS / "lifelong.yaml"))
    folder = "results/lifelong/rounds/gpt2"
    assert lifelong.rounds_files("gpt2", "ft") == [f"{folder}/ft/1x512-8x64-64x8_seed0-1.json"]
    assert lifelong.rounds_files("gpt2", "malmen_retrained") == [f"{folder}/malmen_retrained/1x512-8x64_seed0-1.json"]
    assert lifelong.retraining_tuples(Wildcards(editor="malmen_retrained")) == ["data/lifelong/world/zsre/train.jsonl"]
    assert lifelong.retraining_tuples(Wildcards(editor="malmen")) == lifelong.metrics_files("gpt2", "ft") == []
    apart = changed("lifelong", jobs={"n_edits_per_job": 2, "seeds_per_job": 1})
    assert apart.rounds_files("gpt2", "ft", ["64x8"]) == [f"{folder}/ft/64x8_seed{seed}.json" for seed in (0, 1)]
    assert apart.rounds_files("gpt2", "ft", ["1x512"])[0] == f"{folder}/ft/1x512-8x64_seed0.json"
    costs = tiny.rounds_cost_files("gpt2", "ultraedit")
    assert costs == ["results/test/rounds/gpt2/ultraedit/2x16_seed0.cost.json"]
    assert tiny.all_rounds() and tiny.rounds_files("bert", "malmen") == []
    assert changed("demo").after_malmen("md") == []


def test_all_editors_are_made_even_without_figures(tiny: Layout) -> None:
    files = tiny.all_editors()
    assert set(files) == {
        *(
            f
            for model in tiny.config.models
            for editor in tiny.config.editors
            for f in tiny.trained_editors(model, editor)
        ),
        "results/test/editors/gpt2/memit/key_covariance.safetensors",
    }
    bare = changed("test", figures={}, tables={})
    assert bare.trained_editors("bert", "malmen") == []
    assert set(files) < set(bare.all_editors())
    made = {tuple(Path(file).parts[3:5]) for file in bare.all_editors()}
    assert {Path(file).parts[3] for file in bare.all_covariances()} == {"gpt2", "gpt2_alternative"}
    assert {("bert", "first_layer"), ("gpt2_alternative", "memit")} < made
    assert not {("bert", "memit"), ("gpt2", "ft")} & made


def test_a_model_and_an_editor_that_nothing_shows_are_made_ready_too(tiny: Layout) -> None:
    raw = yaml.safe_load((CONFIGURATIONS / "test.yaml").read_text(encoding="utf-8"))
    other = {**raw["models"]["gpt2"], "label": "Other", "n_edits": [8]}
    prepared = changed("test", models={**raw["models"], "other": other}).config.to_prepare()
    assert prepared["other", "malmen"] == [8] and prepared["other", "memit"] == [8]
    assert prepared["gpt2", "malmen"] == tiny.config.n_edits("gpt2", "malmen")
    assert ("bert", "memit") not in prepared


def test_an_editor_that_nothing_shows_is_checked_against_its_models() -> None:
    with pytest.raises(UserError, match=r"models\.\w+\.editors\.deep.* edits the last 3 of the layers"):
        changed("test", figures={}, tables={}, editors={"deep": {"label": "Deep", "last_blocks": 3}})
    with pytest.raises(UserError, match=r"models\.bert is to be edited with m = 5000"):
        raw = yaml.safe_load((CONFIGURATIONS / "test.yaml").read_text(encoding="utf-8"))
        changed("test", figures={}, tables={}, models={"bert": {**raw["models"]["bert"], "n_edits": [5000]}})


def test_a_cache_is_shared_by_editors_of_the_same_layers() -> None:
    layout = changed("test", cache={"min_runs": 1})
    assert layout.caches("gpt2", "mend", "train") == ["results/test/cache/gpt2/malmen/train"]
    assert layout.caches("gpt2", "ft", "train") == []
    names = {Path(folder).parent.name for folder in layout.all_caches() if "/gpt2/" in folder}
    assert names == {"malmen", "first_layer", "all_tokens"}
    assert changed("test").all_caches() == []


def test_memit_alone_needs_a_covariance_of_keys(demo: Layout, paper: Layout) -> None:
    memit = Wildcards(editor="memit")
    (file,) = demo.key_covariance(memit)
    assert Path(file).parent == Path("results/demo/editors/gpt2/memit")
    assert demo.key_covariance(Wildcards()) == []
    assert demo.covariance_text(memit) == ["data/demo/world/zsre/text.txt"]
    assert paper.covariance_text(memit) == []  # streamed


def test_tuning_leaves_out_what_the_tuples_cannot_hold_and_memit_on_claims(tiny: Layout) -> None:
    files = tiny.tuning_files()
    assert files and all(file.startswith("results/test/metrics/tune/") for file in files)
    assert not any("/bert/memit/" in file for file in files)
    assert set(n_edits_in(files[0])) & set(tiny.config.tuning_n_edits("bert"))


def test_tuning_compares_editors_that_no_figure_shows() -> None:
    scan = changed("test", figures={}, tables={})
    editors = {Path(file).parent.name for file in scan.tuning_files()}
    assert editors == set(scan.config.editors)
    shared = changed("test", figures={}, tables={}, cache={"min_runs": 1})
    assert shared.caches("gpt2", "malmen", "train")


def test_figures_and_tables_read_what_is_measured_for_them(tiny: Layout) -> None:
    ablations, config = tiny.config.tables_of(Ablation), tiny.config
    comparison, failures = config.tables["table3"], config.tables["table4"]
    assert isinstance(comparison, Comparison) and isinstance(failures, Failures)
    everything = set(tiny.all_metrics())
    for file in [
        *tiny.curve_files("figure4"),
        *tiny.ablation_files(ablations["table1"]),
        *tiny.comparison_files(comparison),
    ]:
        assert file in everything
    timed = set(tiny.ablation_files(ablations["table2"])) - everything
    assert timed < set(tiny.all_costs()) and len(timed) == 4
    assert tiny.failures_file(failures) == "results/test/failures/gpt2/malmen/m16_seed0.json"
    assert tiny.memory_files() == ["results/test/memory/figure9.cost.json"]
    assert changed("test", figures={}).memory_files() == []


def test_rebuilt_data_are_made_of_parts_in_order(rebuilt: Layout) -> None:
    fever, alternative = rebuilt.steps_of("fever"), rebuilt.steps_of("zsre_alternative")
    assert list(fever) == ["originals", "translated", "filtered"]
    assert list(alternative) == ["originals", "translated", "alternatives"]
    folder = "data/test/rebuild/steps/fever"
    assert fever["filtered"] == [f"{folder}/filtered/{part}.jsonl" for part in ("0-of-2", "1-of-2")]
    assert rebuilt.reports_of("fever")["originals"] == [f"{folder}/originals.report.json"]
    assert rebuilt.filtering_model("fever") == "bert"


def test_a_translator_is_fetched_unless_it_is_local(rebuilt: Layout, tmp_path: Path) -> None:
    assert rebuilt.translator("forward") == "data/test/rebuild/translators/forward"
    local = {"source": "rebuild", "rebuild": {"translation": {"forward": str(tmp_path)}}}
    assert changed("test", data=local).translator("forward") == str(tmp_path)


def test_the_layout_loads_neither_snakemake_nor_torch() -> None:
    code = (
        "import sys; import malmen.workflow.layout, malmen.workflow.parameters, malmen.workflow.resources; "
        "print(sorted({'torch', 'transformers', 'snakemake'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
