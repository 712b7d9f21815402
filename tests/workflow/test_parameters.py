"""What the workflow's rules give to their scripts, and what they ask for."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from wildcards import Wildcards

from malmen.config.load import load, load_file
from malmen.config.outputs import Ablation
from malmen.plan.estimate import Known, train_editor
from malmen.workflow.layout import Layout
from malmen.workflow.parameters import Parameters, code_of
from malmen.workflow.resources import START_MINUTES, Requests

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "config" / "paper.yaml"


def parameters_of(raw: dict[str, Any]) -> Parameters:
    return Parameters(Layout(load(raw)))


@pytest.fixture
def raw() -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "test.yaml").read_text(encoding="utf-8"))
    return raw


@pytest.fixture
def parameters(raw: dict[str, Any]) -> Parameters:
    return parameters_of(raw)


def test_a_models_training_settings_are_no_part_of_what_editing_needs(raw: dict[str, Any]) -> None:
    before = parameters_of(raw).edited_model_spec("bert")
    raw["models"]["bert"]["pretraining"] = {"epochs": 7}
    assert parameters_of(raw).edited_model_spec("bert") == before
    assert before["name"] == "bert" and before["task"] == "fact_checking"


def test_only_a_local_models_weights_are_checked_when_it_is_loaded(tmp_path: Path) -> None:
    raw = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    raw["models"]["gpt2"]["sha256"] = 64 * "a"
    assert parameters_of(raw).edited_model_spec("gpt2")["sha256"] is None
    raw |= {"figures": {}, "tables": {}}
    raw["models"]["gpt2"] |= {"pretrained": str(tmp_path)}
    assert parameters_of(raw).edited_model_spec("gpt2")["sha256"] == 64 * "a"
    assert "sha256" not in parameters_of(raw).edited_model_spec("bert")  # it is fine-tuned first


@pytest.mark.parametrize("section", ["training", "hypernetwork"])
def test_the_cache_depends_on_what_is_cached_alone(raw: dict[str, Any], section: str) -> None:
    before = parameters_of(raw).cached_settings("gpt2", "malmen")
    raw["editors"]["malmen"][section] |= {"training": {"max_steps": 9}, "hypernetwork": {"rank": 3}}[section]
    assert parameters_of(raw).cached_settings("gpt2", "malmen") == before
    raw["editors"]["malmen"]["hypernetwork"]["tokens"] = "all"
    assert parameters_of(raw).cached_settings("gpt2", "malmen") != before


def test_an_editor_is_told_what_its_cache_was_computed_with(raw: dict[str, Any]) -> None:
    assert parameters_of(raw).sharing_settings(Wildcards()) is None
    shared = parameters_of({**raw, "cache": {"min_runs": 1}})
    assert shared.sharing_settings(Wildcards(editor="mend")) == shared.cached_settings("gpt2", "malmen")


def test_the_covariance_depends_on_layers_and_text_alone(raw: dict[str, Any]) -> None:
    memit = Wildcards(editor="memit")
    before = parameters_of(raw).covariance_settings(memit)
    raw["editors"]["memit"]["memit"]["steps"] = 9
    assert parameters_of(raw).covariance_settings(memit) == before
    raw["editors"]["memit"]["blocks"] = [1]
    assert parameters_of(raw).covariance_settings(memit) != before


def test_tuning_measures_what_its_tuples_can_hold(parameters: Parameters) -> None:
    held = parameters.config.tuning_n_edits("bert")
    assert parameters.measured_n_edits(Wildcards("bert", n_edits="4-16")) == [4, 16]
    tuned = parameters.measured_n_edits(Wildcards("bert", n_edits="4-512", split="tune"))
    assert tuned == [m for m in (4, 512) if m in held] and 512 not in tuned
    kept = [parameters.kept_answers(Wildcards("bert", split=split)) for split in ("validation", "tune")]
    assert kept == [parameters.config.evaluation.answers, 0] and kept[0] > 0


def test_figures_are_labelled_for_the_report(parameters: Parameters) -> None:
    labels = parameters.figure_labels(Wildcards(figure="figure4"))
    assert labels == {"figure": "Figure 4", "model": "BERT (test)", "data": "FEVER-like (synthetic)"}
    assert parameters.figure_title(Wildcards(figure="figure4")) == "Figure 4: BERT (test), FEVER-like (synthetic)"
    assert parameters.curve_n_edits(Wildcards(figure="figure4")) == [4, 16]
    assert parameters.label(Wildcards()) == "MALMEN on GPT-2 (test)"


def test_the_memory_figure_compares_two_computations(parameters: Parameters) -> None:
    editors = parameters.memory_editors(Wildcards(figure="figure9"))
    assert [editor["hypernetwork"]["aggregation"] for editor in editors.values()] == ["least_squares", "sum"]
    assert parameters.memory_labels(Wildcards(figure="figure9")) == {
        "separated": "MALMEN",
        "concatenated": "MEND-style",
    }


def test_rows_of_a_timed_ablation_have_costs(parameters: Parameters) -> None:
    table = parameters.config.tables_of(Ablation)["table2"]
    timed, untimed = (parameters.ablation_rows(table.model_copy(update={"times": times})) for times in (True, False))
    assert [row["variant"] for row in timed] == ["all_tokens", "malmen"]
    assert timed[0]["costs"]["gpt2"] == parameters.layout.cost_files("gpt2", "all_tokens", [16])
    assert untimed[0] == {**timed[0], "costs": {}}


def test_every_editor_that_is_measured_has_a_price(parameters: Parameters) -> None:
    priced = {(editor["model"], editor["editor"]): editor for editor in parameters.priced_editors()}
    assert ("bert", "memit") not in priced and ("gpt2_alternative", "mend") in priced
    assert priced["gpt2", "ft"]["editor_label"] == "FT" and priced["gpt2", "ft"]["training"] == []


def test_code_is_that_of_the_script_and_of_the_modules_below_it() -> None:
    code = code_of(ROOT / "workflow" / "scripts", "train_editor.py", "malmen.jobs.train_editor")
    assert {"scripts/train_editor.py", "malmen.editing.training"} < set(code)
    assert "malmen.workflow.parameters" not in code


def asked(known: Known, attempt: int = 1, **wildcards: str) -> dict[str, int]:
    requests = Requests(known).of("train_editor")
    return {
        kind: request({"editor": "malmen", "seeds": "0", **wildcards}, attempt) for kind, request in requests.items()
    }


def test_jobs_ask_for_gpus_only_where_they_run_on_one(raw: dict[str, Any]) -> None:
    assert Requests(Known(load(raw))).gpus("bert") == 0
    assert asked(Known(load(raw)), model="bert", n_edits="16")["gpu_mem_mb"] == 0
    assert Requests(Known(load_file(PAPER))).gpus_of(Wildcards()) == 1


def test_jobs_that_ranks_share_ask_for_as_many_gpus_and_threads(raw: dict[str, Any]) -> None:
    raw["models"]["bert"] |= {"gpus": 4, "workers": 2}
    raw["models"]["gpt2"] |= {"gpus": 2, "device_map": "auto"}
    asked = {}
    for device in ("cpu", "cuda"):
        config = load({**raw, "device": device, "threads": 3})
        requests, parameters = Requests(Known(config)), Parameters(Layout(config))
        for model in ("bert", "gpt2"):
            job = Wildcards(model=model)
            numbers = requests.gpus_of_ranks(job), requests.threads_of_ranks(job), requests.gpus_of(job)
            asked[device, model] = (*numbers, parameters.machine_of_ranks(job).get("ranks"))
    assert asked["cpu", "bert"] == (0, 6, 0, 2) and asked["cpu", "gpt2"] == (0, 3, 0, None)
    assert asked["cuda", "bert"] == (4, 12, 1, 4) and asked["cuda", "gpt2"] == (2, 3, 2, None)


def test_a_clusters_job_asks_for_more_at_each_attempt() -> None:
    known = Known(load_file(PAPER))
    small = asked(known, model="bert", n_edits="16")
    first, second = (asked(known, attempt, model="gptj", n_edits="16384") for attempt in (1, 2))
    assert first["gpu_mem_mb"] == second["gpu_mem_mb"] > 5 * small["gpu_mem_mb"] > 0
    assert first["runtime"] < second["runtime"] and small["mem_mb"] < first["mem_mb"] < second["mem_mb"]
    job = train_editor(known, {"model": "gptj", "editor": "malmen", "n_edits": "16384", "seeds": "0"})
    assert job.time and first["runtime"] == pytest.approx(START_MINUTES + job.time.low / 60, abs=1)
    assert first["mem_mb"] == pytest.approx(job.needs.memory / 1e6, abs=1)


def test_a_model_of_unknown_size_asks_for_something() -> None:
    raw = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    raw["models"]["gptj"] |= {"registry": None, "pretrained": "lab/model", "revision": "main"}
    raw["models"]["gptj"]["ffn"] = {"first": ["a"], "second": ["b"]}
    request = asked(Known(load(raw)), model="gptj", n_edits="32")
    assert request["mem_mb"] > 8000 and request["runtime"] > 60


def test_a_rule_without_a_cost_is_refused() -> None:
    with pytest.raises(KeyError, match="draw_scaling"):
        Requests(Known(load_file(PAPER))).of("draw_scaling")
