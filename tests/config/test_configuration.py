import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from malmen.config.base import Dataset
from malmen.config.configuration import Config, EvaluationSettings
from malmen.config.data import DATASETS, TUPLE_FILES, Data
from malmen.config.editors import editor_settings
from malmen.config.hypernetwork import HyperNetworkEditorSettings, RolloutSettings
from malmen.config.load import load, read_memit_settings
from malmen.config.memit import CovarianceSettings, MemitEditorSettings, MemitSettings
from malmen.config.model_registry import REGISTRY
from malmen.config.outputs import Ablation
from malmen.config.schema import write_schema
from malmen.errors import UserError

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
CONFIGURATIONS = sorted(set((ROOT / "config").glob("*.yaml")) - {REGISTRY})
BERT = "models.bert"
GPT2 = "models.gpt2"
MALMEN = "editors.malmen"
MEMIT = "editors.memit.memit"
DELETE = object()

Raw = dict[str, Any]


def read(path: Path) -> Raw:
    raw: Raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    return raw


@pytest.fixture
def raw() -> Raw:
    return read(ROOT / "config" / "test.yaml")


def changed(raw: Raw, key: str, value: object) -> Raw:
    """Return a configuration with another value for a key such as ``table1.rows.0.label``, or without the key."""
    raw = copy.deepcopy(raw)
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    section: Any = raw
    for part in path:
        section = section[part] if isinstance(part, int) else section.setdefault(part, {})
    if value is DELETE:
        del section[last]
    else:
        section[last] = value
    return raw


def test_schema_is_generated_from_the_types(tmp_path: Path) -> None:
    write_schema(tmp_path / "schema.yaml")
    assert SCHEMA.read_text(encoding="utf-8") == (tmp_path / "schema.yaml").read_text(encoding="utf-8"), (
        "The configuration's types have changed: run `make schema`."
    )


def described(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every property of a schema by its place."""
    for section, content in {"Config": schema, **schema["$defs"]}.items():
        for name, value in content["properties"].items():
            yield f"{section}.{name}", value


def test_every_key_is_described() -> None:
    properties = dict(described(read(SCHEMA)))
    assert len(properties) > 60
    assert not [place for place, value in properties.items() if not value.get("description")]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_configurations_are_valid(path: Path) -> None:
    jsonschema.validate(read(path), read(SCHEMA))
    config = load(read(path))
    assert config.run
    assert {model for model, _ in config.to_prepare()} == set(config.models)
    assert all(config.to_prepare().values())


def test_runs_have_different_names() -> None:
    runs = [read(path)["run"] for path in CONFIGURATIONS]
    assert len(set(runs)) == len(runs)


UNKNOWN: list[tuple[str, object, list[str]]] = [
    ("colour", 1, ["run", "seeds", "tables"]),
    ("data.colour", 1, ["source", "mirror", "split"]),
    ("data.world.colour", 1, ["fever_edits", "zsre_known"]),
    (f"{BERT}.colour", 1, ["pretrained", "n_edits"]),
    (f"{BERT}.scratch.colour", 1, ["hidden_size", "vocabulary"]),
    (f"{BERT}.base_finetuning.colour", 1, ["epochs", "weight_decay"]),
    (f"{MALMEN}.colour", 1, ["based_on", "last_blocks"]),
    (f"{MALMEN}.hypernetwork.colour", 1, ["rank", "aggregation"]),
    (f"{MALMEN}.memit", {"steps": 3}, ["hypernetwork", "training"]),
    (f"{MALMEN}.batch_size", 3, ["hypernetwork", "training"]),
    ("editors.ft.hypernetwork", {"batch_size": 3}, ["finetuning", "batch_size"]),
    (f"{MEMIT}.covariance.colour", 1, ["source", "max_tokens"]),
    (f"{BERT}.editors.mend.training.colour", 1, ["meta_learning_rate", "max_steps"]),
    ("figures.figure9.editors", ["ft"], ["separated", "concatenated"]),
    ("tables.table1.rows.0.colour", 1, ["variant", "editor"]),
]

WRONG: list[tuple[str, object, list[str]]] = [
    # a wrong type
    ("seeds", 3, ["seeds", "3", "list"]),
    ("models", ["bert"], ["models", "['bert']", "mapping"]),
    (BERT, "bert-base-uncased", [BERT, "bert-base-uncased", "mapping"]),
    (f"{BERT}.base_finetuning", ["epochs"], [f"{BERT}.base_finetuning", "['epochs']", "mapping"]),
    (f"{BERT}.editors", ["mend"], [f"{BERT}.editors", "['mend']", "mapping"]),
    (f"{BERT}.editors.mend", 3, [f"{BERT}.editors.mend", "3", "mapping"]),
    ("editors", None, ["editors", "None", "mapping"]),
    (MALMEN, [1], [MALMEN, "[1]", "mapping"]),
    (f"{MALMEN}.training", [1], [f"{MALMEN}.training", "[1]", "mapping"]),
    (f"{MALMEN}.hypernetwork.rank", "many", [f"{MALMEN}.hypernetwork.rank", "'many'", "integer"]),
    (f"{MALMEN}.ffn_layers", "first", [f"{MALMEN}.ffn_layers", "'first'", "list"]),
    ("evaluation.max_groups", 1.5, ["evaluation.max_groups", "1.5", "integer"]),
    # a value that is not among those allowed
    ("device", "tpu", ["device", "'tpu'", "'cpu' or 'cuda'"]),
    ("data.source", "wikipedia", ["data.source", "'wikipedia'", "'rebuild' or 'files'"]),
    ("data.source", "mend", ["data.source", "'mend'", "no data set 'fever'"]),
    ("data.source", "files", ["source is 'files'", "files.facts is not set"]),
    ("data.files.facts", "data/raw/mine.jsonl", ["data.files.facts", "data/raw/mine.jsonl", "elsewhere"]),
    ("data.files.unrelated", "-", ["data.files.unrelated", "standard input"]),
    ("data.files.answers", "old", ["data.files.answers", "'new' or 'true'"]),
    (f"{GPT2}.dataset", "own", ["data.source", "'world'", "no data set 'own'"]),
    ("data.realtext.zsre_edits", ["nope"], ["data.realtext", "zsre_edits", "'nope'", "zsre_knowedit_test, zsre_locft"]),
    (
        "data.realtext.counterfact_edits",
        ["zsre_locft"],
        ["counterfact_edits", "'zsre_locft'", "counterfact_recipe_train"],
    ),
    ("run", "../x", ["run", "'../x'", "pattern"]),
    ("run", "raw", ["run", "'raw'", "choose another"]),
    (f"{BERT}.ffn.first", ["(layer"], [f"{BERT}.ffn.first", "'(layer'", "regular expression"]),
    (f"{BERT}.dataset", "zsre", [BERT, "'bert'", "'zsre'", "'gpt2'"]),
    (f"{BERT}.dataset", "counterfact", [BERT, "'bert'", "'counterfact'", "'gpt2'"]),
    (f"{GPT2}.dataset", "counterfact", ["data.source", "'world'", "no data set 'counterfact'"]),
    # a number out of range
    ("seeds", [0, -1], ["seeds.1", "-1", "greater than or equal to 0"]),
    ("seeds", [], ["seeds", "[]", "one or more different"]),
    ("seeds", [0, 0], ["seeds", "[0, 0]", "one or more different"]),
    ("data.split.tune", -1, ["data.split.tune", "-1", "greater than 0"]),
    ("data.world.fever_edits", -5, ["world", "fever_edits", "-5", "greater than 0"]),
    (f"{MALMEN}.hypernetwork.rank", -1, [f"{MALMEN}.hypernetwork", "rank", "-1", "greater than 0"]),
    (f"{MALMEN}.hypernetwork.learning_rate", float("nan"), ["learning_rate", "nan", "greater than 0"]),
    (f"{MALMEN}.training.locality_coefficient", -1.0, ["locality_coefficient", "-1.0", "greater than or equal to 0"]),
    (f"{MEMIT}.covariance_weight", 0.0, [MEMIT, "covariance_weight", "0.0", "greater than 0"]),
    (f"{MEMIT}.update", "rome", [f"{MEMIT}.update", "'rome'", "'least_squares', 'equality' or 'null_space'"]),
    (f"{MEMIT}.null_space.share", 0, [f"{MEMIT}.null_space", "share", "0", "greater than 0"]),
    (f"{MEMIT}.covariance.max_tokens", 0, [f"{MEMIT}.covariance", "max_tokens", "0", "greater than 0"]),
    (f"{MALMEN}.training.max_steps", 0, [f"{MALMEN}.training", "max_steps", "0", "at least 1"]),
    (
        f"{MALMEN}.training.rollout",
        {"sequences": 2, "n_rounds": 4},
        [f"{MALMEN}.training", "min_steps is 2", "a rollout makes sequences * n_rounds steps", "max_steps to null"],
    ),
    (
        f"{MALMEN}.training",
        {"rollout": {"sequences": 2, "n_rounds": 4, "rounds_per_step": 5}},
        [f"{MALMEN}.training.rollout", "rounds_per_step is 5", "4 rounds"],
    ),
    (
        f"{MALMEN}.training",
        {"rollout": {"sequences": 2, "n_rounds": 4, "rounds_per_step": "none"}},
        [f"{MALMEN}.training.rollout.rounds_per_step", "'none'"],
    ),
    (
        f"{MALMEN}.training",
        {"rollout": {"sequences": 2, "n_rounds": 4, "time_decay": 1.5}},
        [f"{MALMEN}.training.rollout.time_decay", "1.5", "less than or equal to 1"],
    ),
    (f"{MALMEN}.training", {"rollout": {"n_rounds": 4}}, [f"{MALMEN}.training.rollout.sequences", "missing"]),
    (f"{BERT}.base_finetuning.weight_decay", -0.1, ["base_finetuning.weight_decay", "-0.1", "or equal to 0"]),
    (f"{BERT}.scratch.heads", 5, [f"{BERT}.scratch", "heads (5)", "divide", "32"]),
    # kinds and names of figures and tables
    ("figures.figure10", {"model": "bert", "editors": ["ft"]}, ["figures.figure10.kind", "missing", "'scaling'"]),
    ("tables.table1.kind", "scaling", ["tables.table1.kind", "'scaling'", "'ablation', 'comparison', 'failures'"]),
    ("tables.compute", {"kind": "failures", "model": "gpt2", "editor": "malmen", "n_edits": 16}, ["tables.compute"]),
    ("tables.figure4", {"kind": "failures", "model": "gpt2", "editor": "malmen", "n_edits": 16}, ["also", "figure"]),
    (
        "figures.Figure 4",
        {"kind": "scaling", "model": "gpt2", "editors": ["malmen"]},
        ["figures", "'Figure 4'", "pattern"],
    ),
    # what the model does not have
    (
        f"{BERT}.ffn.second",
        [r"bert\.h\.\d+"],
        [f"{BERT}.editors", r"like 'bert\.h\.\d+'", "has 0", "layer.1.output"],
    ),
    (f"{BERT}.editors.malmen.last_blocks", 3, [f"{BERT}.editors", "last 3", "has 2"]),
    (f"{GPT2}.editors.mend.blocks", [0, 2], [f"{GPT2}.editors.mend", "number 2", "c_proj", "has 2"]),
    (f"{GPT2}.editors.mend.blocks", [1, 0], ["blocks", "[1, 0]", "ascending"]),
    ("editors.memit.blocks", None, ["editors.memit", "memit", "set blocks"]),
    ("editors.ft.finetuning.end_of_sequence", True, [f"{BERT}.editors.ft", "fact checker", "no end"]),
    ("figures.figure4.editors", ["memit"], [f"{BERT}.editors.memit", "'memit'", "'fact_checking'"]),
    (
        "editors.memit",
        {"label": "U", "method": "ultraedit", "ultraedit": {}},
        ["editors.memit.ultraedit", "neither is"],
    ),
    (
        "editors.memit",
        {"label": "U", "method": "ultraedit", "ultraedit": {"learning_rate": 1e-6, "step_length": 1}},
        ["editors.memit.ultraedit", "either learning_rate or step_length", "both are"],
    ),
    (
        "editors.memit",
        {"label": "U", "method": "ultraedit", "ultraedit": {"step_length": 1, "warm_up": 3}},
        ["editors.memit.ultraedit", "warm_up is 3", "whitening"],
    ),
    ("editors.memit", {"label": "U", "method": "ultraedit"}, ["editors.memit.ultraedit", "missing"]),
    (
        f"{MALMEN}.method",
        "rome",
        [f"{MALMEN}.method", "'rome'", "'hypernetwork', 'finetuning', 'memit' or 'ultraedit'"],
    ),
    ("editors.mend.method", "memit", ["editors.mend.method", "'memit'", "'malmen'", "same method"]),
    (f"{MALMEN}.hypernetwork.batch_size", "many", [f"{MALMEN}.hypernetwork.batch_size", "integer or 'auto'"]),
    # rounds
    (f"{GPT2}.rounds", [{"n_rounds": 2, "n_edits": 3, "after": [3]}], [f"{GPT2}.rounds.0", "[3]", "rounds up to 2"]),
    (f"{GPT2}.rounds", [{"n_rounds": 2, "n_edits": 3}] * 2, [f"{GPT2}", "2x3 twice"]),
    ("figures.figure5", {"kind": "course", "model": "gpt2", "editors": ["ft"], "rounds": "2x3"}, ["'2x3'", "has 2x16"]),
    ("figures.figure5", {"kind": "rounds", "model": "gpt2", "editors": ["ft"], "total": 6}, ["figure5", "its total"]),
    ("figures.figure5", {"kind": "course", "model": "gpt2", "editors": ["ft"], "rounds": "2"}, ["rounds", "'2'"]),
    ("figures.figure5", {"kind": "course", "model": "t5", "editors": ["ft"], "rounds": "2x3"}, ["'t5'", "bert, gpt2"]),
    (
        "tables.table1",
        {"kind": "moved", "model": "gpt2", "editors": ["ft"], "n_edits": 16},
        ["table1", "'ft'", "trained"],
    ),
    (
        "tables.table1",
        {"kind": "moved", "model": "gpt2", "editors": ["malmen"], "n_edits": 9},
        ["table1", "is 9", "malmen"],
    ),
    (f"{GPT2}.at_most_rounds", {"rome": 3}, [f"{GPT2}.at_most_rounds", "'rome'", "malmen, mend"]),
    ("editors.mend.in_rounds", {"remember_keys": True}, ["mend", "in_rounds.remember_keys", "sum"]),
    (f"{MALMEN}.in_rounds", {"retrain_every": 1, "remember_keys": True}, [f"{MALMEN}.in_rounds", "retrain_every"]),
    ("tables.ladder.measures", ["pre_ES"], ["tables.ladder.measures", "'pre_ES'", "known are ES, GS"]),
    ("tables.ladder.measures", ["ES", "ES"], ["tables.ladder.measures", "one or more different"]),
    ("tables.ladder.rows.0.variant", "unedited", ["tables.ladder.rows", "'unedited'", "unedited model"]),
    (
        "tables.ladder.rows",
        [{"variant": "one", "label": label, "editor": "ultraedit"} for label in "AB"],
        ["tables.ladder.rows", "'one'", "several rows"],
    ),
    # more than the data hold
    (f"{BERT}.n_edits", [4, 500], [BERT, "500", "72", "lower n_edits"]),
    ("tables.table1.n_edits", 50, ["models.gpt2", "50", "36", "lower n_edits"]),
    (f"{BERT}.n_edits", [], [f"{BERT}.n_edits", "[]", "one or more different"]),
    # names of what is not there
    ("figures.figure4.model", "t5", ["figures.figure4", "'t5'", "bert, gpt2"]),
    ("figures.figure4.editors", ["rome"], ["figures.figure4", "'rome'", "malmen, mend"]),
    ("figures.figure8.editors", ["malmen", "ft"], ["figures.figure8", "'ft'", "no hyper-network"]),
    ("figures.figure9.separated", "ft", ["figures.figure9", "'ft'", "no hyper-network"]),
    ("figures.figure9.separated", "rome", ["figures.figure9", "'rome'", "malmen, mend"]),
    ("figures.figure9.model", "t5", ["figures.figure9", "'t5'", "bert, gpt2"]),
    ("figures.figure9.limit_bytes", 0, ["figures.figure9.limit_bytes", "0", "greater than 0"]),
    ("tables.table1.rows.1.editor", "rome", ["tables.table1", "'rome'", "malmen, mend"]),
    ("tables.table1.models", ["t5"], ["tables.table1", "'t5'", "bert, gpt2"]),
    ("tables.table2.models", ["t5"], ["tables.table2", "'t5'", "bert, gpt2"]),
    ("tables.table3.editors", ["rome"], ["tables.table3", "'rome'", "malmen, mend"]),
    ("tables.table3.n_edits", [5, 50], ["models.gpt2_alternative", "50", "48", "lower n_edits"]),
    ("tables.table4.model", "bert", ["tables.table4.model", "'bert'", "answers questions"]),
    ("tables.table5.records", 0, ["tables.table5.records", "0", "greater than 0"]),
    (f"{BERT}.editors.rome", {}, [f"{BERT}.editors.rome", "malmen, mend"]),
    ("editors.mend.based_on", "rome", ["editors.mend.based_on", "'rome'", "malmen, mend"]),
    ("editors.malmen.based_on", "malmen", ["editors.malmen.based_on", "'malmen'", "itself"]),
    ("editors.malmen.based_on", "mend", ["based_on", "'mend'", "'malmen'", "itself"]),
    # where a model comes from
    (f"{BERT}.pretrained", "bert-base-uncased", [BERT, "pretrained", "bert-base-uncased", "scratch", "exactly one"]),
    (
        BERT,
        {"label": "B", "dataset": "fever", "ffn": {"first": ["a"], "second": ["b"]}, "n_edits": [4]},
        [BERT, "pretrained", "scratch", "None", "exactly one"],
    ),
    (f"{BERT}.scratch", {}, [f"{BERT}.scratch.architecture", "missing"]),
    (f"{BERT}.label", DELETE, [f"{BERT}.label", "missing"]),
    (f"{GPT2}.label", "BERT (test)", ["models.gpt2.label", "'BERT (test)'", "models.bert"]),
    (f"{MALMEN}.label", DELETE, [MALMEN, "label", "missing"]),
]


def refusal(raw: Raw) -> str:
    """Return the sentences with which a configuration is refused, one a line."""
    with pytest.raises(UserError) as raised:
        load(raw)
    for sentence in str(raised.value).splitlines():
        assert sentence.startswith("Configuration: ") and sentence.endswith(".")
        assert not re.search(r"[^.]\. [A-Z]", sentence)
        assert len(sentence) < 400
    return str(raised.value)


def test_wrong_rounds_are_named_once_for_all_editors(raw: Raw) -> None:
    assert len(refusal(changed(raw, "figures.course.rounds", "4x16")).splitlines()) == 1


@pytest.mark.parametrize(("key", "value", "known"), UNKNOWN, ids=[case[0] for case in UNKNOWN])
def test_an_unknown_key_is_named_with_the_known_ones(raw: Raw, key: str, value: object, known: list[str]) -> None:
    sentence = refusal(changed(raw, key, value))
    assert f" {key} is not a known key" in sentence
    for name in known:
        assert name in sentence


@pytest.mark.parametrize(("key", "value", "parts"), WRONG, ids=[f"{case[0]}={str(case[1])[:20]}" for case in WRONG])
def test_a_mistake_is_named_with_its_value_and_what_is_allowed(
    raw: Raw, key: str, value: object, parts: list[str]
) -> None:
    sentence = refusal(changed(raw, key, value))
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize("source", sorted(set(DATASETS) - {"realtext"}))
@pytest.mark.parametrize(
    "dataset, file, validation", [("counterfact", "recipe_train", 3000), ("wikibigedit", "locft", 900)]
)
def test_some_data_sets_are_real_text_alone(
    raw: Raw, source: str, dataset: Dataset, file: str, validation: int
) -> None:
    raw = changed(raw, "data.files", {"facts": "mine.jsonl"})
    raw = changed(changed(raw, f"{GPT2}.dataset", dataset), "data.source", source)
    assert f"data.source is '{source}', which has no data set '{dataset}'; choose another" in refusal(raw)
    config = load(changed(raw, "data.source", "realtext"))
    assert config.data.upstream(dataset) == [f"{dataset}_{file}"]
    assert config.data.at_most(dataset, "validation") == validation


def test_the_number_of_tuples_is_not_known_of_a_file_whose_records_nobody_counted(raw: Raw) -> None:
    raw = changed(changed(raw, f"{GPT2}.dataset", "counterfact"), "data.source", "realtext")
    config = load(changed(raw, "data.realtext.counterfact_edits", ["counterfact_rledit_eval"]))
    assert config.data.at_most("counterfact", "validation") is None


def test_every_source_has_its_data_sets() -> None:
    assert set(DATASETS) == set(get_args(Data.model_fields["source"].annotation))
    assert {source: tuple(files) for source, files in TUPLE_FILES.items()}.items() <= DATASETS.items()


@pytest.mark.parametrize(
    ("key", "value"),
    [("revision", "0" * 40), ("pickle", {"file": "pytorch_model.bin", "bytes": 1, "sha256": "0" * 64})],
)
def test_what_only_the_hub_has_is_refused_of_other_models(raw: Raw, key: str, value: Any) -> None:
    package = {"name": "weights", "version": "1.0", "sha256": "0" * 64, "file": "weights/model"}
    packaged = changed(changed(raw, f"{BERT}.scratch", DELETE), f"{BERT}.package", package)
    assert load(packaged).models["bert"].package
    for other in (raw, packaged):
        assert f"{BERT}: {key} is set, but the model is not of the Hugging Face hub; remove {key}" in refusal(
            changed(other, f"{BERT}.{key}", value)
        )


def test_a_hub_id_needs_a_revision(raw: Raw, tmp_path: Path) -> None:
    hub = changed(changed(raw, f"{BERT}.scratch", DELETE), f"{BERT}.pretrained", "lab/bert")
    assert "revision is not set; set it to a commit of lab/bert" in refusal(hub)
    assert load(changed(hub, f"{BERT}.revision", "0" * 40)).models["bert"].directory is None
    assert load(changed(hub, f"{BERT}.pretrained", str(tmp_path))).models["bert"].directory == tmp_path


@pytest.mark.parametrize("path", ["/nope/gpt2", "./nope", "../nope", "~/gpt2", "models/of/mine", "nope/gpt2/"])
def test_what_can_only_be_a_directory_must_be_there(raw: Raw, path: str) -> None:
    local = changed(changed(raw, f"{BERT}.scratch", DELETE), f"{BERT}.pretrained", path)
    assert f": {BERT}.pretrained: there is no directory {path}; check the path" in refusal(local)


def test_a_fact_checker_needs_a_head_or_a_training_that_makes_one(raw: Raw, tmp_path: Path) -> None:
    key = f"{BERT}.base_finetuning"
    untrained = changed(raw, key, DELETE)
    assert key in refusal(untrained)
    local = changed(changed(untrained, f"{BERT}.scratch", DELETE), f"{BERT}.pretrained", str(tmp_path))
    for name, fits in (("bert.pooler.weight", False), ("fact_head.weight", True)):
        save_file({name: np.ones(1)}, tmp_path / "model.safetensors")
        if fits:
            assert load(local).models["bert"].directory == tmp_path
        else:
            assert key in (message := refusal(local)) and str(tmp_path) in message


def test_layers_of_a_local_directory_are_checked(raw: Raw, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": 1}')
    local = changed(changed(raw, f"{BERT}.scratch", DELETE), f"{BERT}.pretrained", str(tmp_path))
    load(local)
    assert "has 1" in refusal(changed(local, f"{BERT}.editors.malmen.last_blocks", 2))


def test_a_long_value_is_shortened(raw: Raw) -> None:
    assert "xxx..." in refusal(changed(raw, "device", "x" * 5000))
    assert "..." in refusal(changed(raw, "editors", list(range(5000))))


@pytest.mark.parametrize(
    ("device", "model", "hyper_network", "sentence"),
    [
        ("cpu", {"workers": 2, "device_map": "auto"}, None, "device_map spreads one model, but .*workers is 2"),
        ("cpu", {"workers": 2}, "cpu", "device is 'cpu', but 2 processes share a job with bert.*workers to 1"),
        ("cuda", {"gpus": 4}, "cuda:1", "device is 'cuda:1', but 4 processes .* models.bert.gpus to 1"),
        ("cuda", {"gpus": 2, "device_map": "auto"}, "cuda:2", "names GPU 2, .* takes 2; raise models.bert.gpus to 3"),
        ("cuda", {"device_map": {"": 1}}, None, "device_map names GPU 1, .* takes 1; raise models.bert.gpus to 2"),
    ],
)
def test_what_lies_on_devices_that_a_job_does_not_have_is_named_once(
    raw: Raw, device: str, model: dict[str, Any], hyper_network: str | None, sentence: str
) -> None:
    raw = changed(raw, "device", device)
    raw["models"]["bert"] |= model
    raw = changed(raw, f"{BERT}.editors.malmen.hypernetwork.device", hyper_network)
    found = refusal(raw)
    assert re.search(sentence, found) and len(found.splitlines()) == 1


def test_a_model_is_spread_or_its_edits_are_shared(raw: Raw) -> None:
    spread = {"gpus": 2, "device_map": {"": 1}, "editors": {"malmen": {"hypernetwork": {"device": "cuda:1"}}}}
    raw["models"]["bert"] |= spread
    raw["models"]["gpt2"] |= {"gpus": 4, "workers": 3}
    on_cpu, on_gpus = load(raw), load(changed(raw, "device", "cuda"))
    assert [config.ranks("bert") for config in (on_cpu, on_gpus)] == [1, 1]
    assert [config.ranks("gpt2") for config in (on_cpu, on_gpus)] == [3, 4]
    assert [config.gpus_of_a_process(name) for config in (on_cpu, on_gpus) for name in ("bert", "gpt2")] == [0, 0, 2, 1]


def editor(raw: Raw, model: str, name: str) -> Any:
    return load(raw).models[model].editors[name]


def test_an_editor_starts_from_the_one_it_is_based_on(raw: Raw) -> None:
    raw = changed(raw, f"{MALMEN}.hypernetwork.rank", 24)
    mend = editor(raw, "bert", "mend")
    assert (mend.label, mend.hypernetwork.rank, mend.hypernetwork.aggregation) == ("MEND", 24, "sum")
    assert editor(raw, "bert", "malmen").hypernetwork.aggregation == "least_squares"


def test_what_a_model_changes_reaches_the_editors_based_on_it(raw: Raw) -> None:
    raw = changed(raw, f"{BERT}.editors.malmen.hypernetwork.rank", 40)
    raw = changed(raw, f"{BERT}.editors.mend.hypernetwork.blocks", 3)
    assert [editor(raw, "bert", name).hypernetwork.rank for name in ("malmen", "mend", "all_tokens")] == [40, 40, 40]
    assert [editor(raw, "bert", name).hypernetwork.blocks for name in ("malmen", "mend")] == [2, 3]
    assert editor(raw, "gpt2", "mend").hypernetwork.rank == 16


def test_an_editors_settings_come_back_from_dictionaries(raw: Raw) -> None:
    memit = {"steps": 3, "prefix_starts": ["So"], "covariance": {"source": "wikipedia", "max_tokens": 9}}
    raw = changed(raw, f"{GPT2}.editors.memit", {"ffn_layers": ["second"], "blocks": [1], "memit": memit})
    covariance = CovarianceSettings(source="wikipedia", max_tokens=9)
    expected = MemitSettings(
        steps=3, prefix_starts=("So",), covariance=covariance, covariance_weight=30, prefix_tokens=2
    )
    assert editor(raw, "gpt2", "memit") == MemitEditorSettings(label="MEMIT", blocks=(1,), memit=expected)
    for settings in load(raw).models["gpt2"].editors.values():
        assert editor_settings(asdict(settings)) == settings


def test_every_editor_has_the_settings_of_its_own_method_alone(raw: Raw) -> None:
    settings = {name: set(asdict(editor)) for name, editor in load(raw).models["gpt2"].editors.items()}
    assert settings["malmen"] - settings["memit"] == {"hypernetwork", "training", "in_rounds"}
    assert settings["memit"] - settings["malmen"] == {"memit", "batch_size"}
    assert settings["ft"] - settings["malmen"] == {"finetuning", "batch_size"}


def test_all_mistakes_are_named_at_once_and_inherited_ones_once(raw: Raw) -> None:
    for key, value in (("colour", 1), ("seeds", []), (f"{MALMEN}.hypernetwork.rank", 0), (f"{GPT2}.label", DELETE)):
        raw = changed(raw, key, value)
    lines = refusal(raw).splitlines()
    assert [line.split()[1] for line in lines] == ["seeds", f"{MALMEN}.hypernetwork.rank", f"{GPT2}.label", "colour"]


def test_all_mistakes_of_sections_together_are_named_at_once(raw: Raw) -> None:
    raw = changed(changed(raw, "figures.figure4.model", "t5"), "tables.table1.rows.1.editor", "rome")
    assert {line.split()[1] for line in refusal(raw).splitlines()} == {"figures.figure4", "tables.table1"}


def test_a_file_of_memits_settings_may_lack_keys(tmp_path: Path) -> None:
    path = tmp_path / "memit.yaml"
    path.write_text("steps: 3\nprefix_starts: [The]\ncovariance: {batch_size: 2}\n", encoding="utf-8")
    expected = MemitSettings(steps=3, prefix_starts=("The",), covariance=CovarianceSettings(batch_size=2))
    assert read_memit_settings(path) == expected
    path.write_text("", encoding="utf-8")
    assert read_memit_settings(path) == MemitSettings()
    path.write_text(json.dumps(asdict(expected)), encoding="utf-8")
    assert read_memit_settings(path) == expected


def test_the_example_of_memits_settings_has_the_demos() -> None:
    demo = editor(read(ROOT / "config" / "demo.yaml"), "gpt2", "memit").memit
    example = read_memit_settings(ROOT / "examples" / "memit.yaml")
    assert example == replace(demo, covariance=CovarianceSettings())


@pytest.mark.parametrize(
    "text, reason",
    [
        ("step: 3", "step is not a known key; known are steps, learning_rate, "),
        ("covariance: {token: 3}", "covariance.token is not a known key; known are source, path, max_tokens, "),
        ("steps: many", "steps is 'many' but must be a valid integer"),
        ("steps: 0", "steps is 0 but must be greater than 0"),
        ("prefix_starts: The", "prefix_starts is 'The' but must be a list"),
        ("[steps]", "it is ['steps'] but must be a mapping of keys to values"),
        ("{steps", "cannot be read as YAML or JSON"),
    ],
)
def test_a_mistake_in_memits_settings_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "memit.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_memit_settings(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and reason in message and message.endswith(".") and "\n" not in message


def test_loading_leaves_its_argument_alone(raw: Raw) -> None:
    before = copy.deepcopy(raw)
    load(raw)
    assert raw == before


SIZES: list[tuple[Callable[[Config], list[int]], list[int]]] = [
    (lambda config: config.n_edits("bert"), [4, 8, 16]),
    (lambda config: config.n_edits("bert", "malmen"), [4, 8, 16]),
    (lambda config: config.n_edits("bert", "first_layer"), [16]),
    (lambda config: config.n_edits("bert", "unused"), []),
    (lambda config: config.tuning_n_edits("bert"), [4, 8]),
]


def test_every_table_adds_its_sizes_and_may_be_left_out(raw: Raw) -> None:
    raw = changed(raw, "tables.table4.n_edits", 7)
    assert load(raw).n_edits("gpt2", "malmen") == [7, 16]
    assert load(raw).n_edits("gpt2", "mend") == [16]
    assert load(raw).n_edits("gpt2_alternative") == [5, 10]
    for name in ("tables.table2", "tables.table3", "tables.table4", "tables.table5"):
        raw = changed(raw, name, DELETE)
    assert next(iter(load(raw).tables)) == "table1"
    assert load(raw).n_edits("gpt2", "malmen") == [16]


@pytest.mark.parametrize(("ask", "expected"), SIZES)
def test_sizes_are_those_of_the_figures_and_tables(
    raw: Raw, ask: Callable[[Config], list[int]], expected: list[int]
) -> None:
    raw = changed(raw, f"{BERT}.n_edits", [8, 4])
    raw = changed(changed(raw, "tables.table1.n_edits", 16), "tables.table1.models", ["bert"])
    raw = changed(raw, "editors.unused", {"label": "Unused", "last_blocks": 1})
    assert ask(load(raw)) == expected


def test_the_authors_splits_are_known_before_they_are_there(raw: Raw) -> None:
    data = {"source": "authors", "split": {"train": 99, "tune": 1, "validation": 500}}
    config = load(changed(changed(raw, "data", data), f"{BERT}.n_edits", [10_444]))
    assert [config.data.at_most("fever", split) for split in ("train", "tune", "validation")] == [103_917, 1050, 10_444]
    assert config.data.at_most("zsre_alternative", "validation") == 27_644
    assert config.tuning_n_edits("gpt2") == [16] and config.tuning_n_edits("bert") == []
    assert "10444 tuples" in refusal(changed(changed(raw, "data", data), f"{BERT}.n_edits", [10_445]))


def test_figures_are_optional_and_memory_adds_no_measurements(raw: Raw) -> None:
    config = load(changed(raw, "figures", {"figure9": raw["figures"]["figure9"]}))
    assert list(config.memory_figures) == ["figure9"] and config.curves == {}
    assert config.n_edits("bert") == [] and config.n_edits("gpt2") == [16]
    figures = {"figure8": {"kind": "residual", "model": "gpt2", "editors": ["mend", "malmen"]}}
    config = load(changed(changed(raw, "figures", figures), f"{GPT2}.n_edits", [2, 4]))
    assert config.n_edits("gpt2", "malmen") == [2, 4, 16]
    assert load(changed(raw, "figures", DELETE)).figures == {}


def test_figures_and_tables_of_a_kind_can_have_any_names_and_be_any_number(raw: Raw) -> None:
    raw = changed(raw, "figures.my_curve", {"kind": "scaling", "model": "gpt2", "editors": ["malmen"], "n_edits": [4]})
    row = {"variant": "mine", "label": "Mine", "editor": "mend"}
    raw = changed(raw, "tables.mine", {"kind": "ablation", "models": ["gpt2"], "n_edits": 8, "rows": [row]})
    config = load(raw)
    assert config.n_edits("gpt2", "malmen") == [4, 16] and config.n_edits("gpt2", "mend") == [8, 16]
    assert set(config.tables_of(Ablation)) == {"table1", "table2", "mine"}


def test_rollouts_are_told_apart_by_their_steps(raw: Raw) -> None:
    rollout = {"sequences": 1, "n_rounds": 40}
    training = {"min_steps": 0, "max_steps": None, "locality_coefficient": 0.6, "rollout": rollout}
    released = {"based_on": "malmen", "label": "RLEdit, one step", "training": training}
    changes = {"rollout": {"sequences": 5, "rounds_per_step": 1, "l2_gradient": True}}
    many = {"based_on": "rledit", "label": "RLEdit, many steps", "training": changes}
    editors = (
        load(changed(changed(raw, "editors.rledit", released), "editors.rledit_many", many)).models["gpt2"].editors
    )
    settings = [editors[name] for name in ("rledit", "rledit_many")]
    assert all(isinstance(one, HyperNetworkEditorSettings) for one in settings)
    one, other = (one.training for one in settings if isinstance(one, HyperNetworkEditorSettings))
    assert one.rollout == RolloutSettings(1, 40) and one.steps(1000, 16) == 40
    assert other.rollout == RolloutSettings(5, 40, rounds_per_step=1, l2_gradient=True)
    assert other.steps(1000, 16) == 200 and other.locality_coefficient == 0.6


def test_what_runs_share_is_kept_where_enough_of_them_share_it() -> None:
    raw = read(ROOT / "config" / "demo.yaml")
    assert load(raw).sharing("gpt2", "malmen") is None
    config = load(raw | {"cache": {}})
    for editor in ("malmen", "mend", "no_regularisation"):
        assert config.sharing("gpt2", editor) == "malmen"
    # One value of m with two seeds each; and no hyper-network.
    assert [config.sharing("gpt2", editor) for editor in ("first_layer", "all_tokens", "ft", "memit")] == [None] * 4
    assert load(raw | {"cache": {"min_runs": 2}}).sharing("gpt2", "first_layer") == "first_layer"
    # What is kept belongs to the unedited model, on which a rollout does not train.
    rollout = {"min_steps": 0, "max_steps": None, "rollout": {"sequences": 2, "n_rounds": 4}}
    rolled_out = load(changed(raw | {"cache": {}}, "editors.mend.training", rollout))
    assert [rolled_out.sharing("gpt2", editor) for editor in ("malmen", "mend")] == ["malmen", None]


def test_an_editor_that_takes_long_is_measured_at_small_m_in_figures(raw: Raw) -> None:
    figures = {"f": {"kind": "scaling", "model": "bert", "editors": ["ft", "malmen"], "n_edits": [2, 4, 8]}}
    limited = changed(changed(raw, f"{BERT}.at_most", {"ft": 4}), "figures", figures)
    config = load(changed(limited, "tables", {}))
    assert (config.n_edits("bert", "ft"), config.n_edits("bert", "malmen")) == ([2, 4], [2, 4, 8])
    assert f"{BERT}.at_most" in refusal(changed(raw, f"{BERT}.at_most", {"other": 4}))
    assert "max_edits_of" in refusal(changed(raw, "evaluation.max_edits_of", {"other": 4}))
    sentence = refusal(changed(limited, f"{BERT}.at_most", {"ft": 1}))
    assert f"{BERT}.at_most.ft is 1, but figures.f begins at m = 2" in sentence


@pytest.mark.parametrize(
    ("limits", "groups"),
    [
        ({}, [None, None, None]),
        ({"max_groups": 8}, [8, 8, 8]),
        ({"max_edits": 64}, [64, 4, 1]),
        ({"max_groups": 8, "max_edits": 64}, [8, 4, 1]),
    ],
)
def test_groups_at_each_m_fill_a_number_of_edits(limits: Mapping[str, int], groups: list[int | None]) -> None:
    settings = EvaluationSettings.model_validate(limits)
    assert [settings.groups(m) for m in (1, 16, 256)] == groups
    for_one = EvaluationSettings.model_validate({**limits, "max_edits_of": {"memit": 32}})
    assert [for_one.groups(m, "memit") for m in (8, 16, 256)] == [4, 2, 1]
    assert [for_one.groups(m, "ft") for m in (1, 16, 256)] == groups


def test_a_cache_holds_the_tuples_that_runs_measure() -> None:
    raw = yaml.safe_load((ROOT / "config" / "test.yaml").read_text(encoding="utf-8"))
    of_all = load({**raw, "evaluation": {}})
    some = load({**raw, "evaluation": {"max_groups": 4, "max_edits": 10}})
    assert of_all.cached_tuples("gpt2", "validation") is None
    assert some.cached_tuples("gpt2", "train") is None
    sizes = {*some.n_edits("gpt2"), *some.models["gpt2"].n_edits}
    assert some.cached_tuples("gpt2", "validation") == max(m * min(4, max(1, 10 // m)) for m in sizes)
