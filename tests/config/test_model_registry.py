"""The registry: what a configuration takes from an entry, and that an entry is enough to edit a model."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from later_models import later_model
from tiny_models import edit_tuples, tiny_model, tiny_tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from malmen.config import model_registry as registry
from malmen.config.configuration import Config
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.load import load
from malmen.config.model_registry import read_registry
from malmen.data.tuples import EditTuple, write_jsonl
from malmen.editing.layers import edited_layers
from malmen.errors import UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.evaluate_editor import evaluate_editor
from malmen.jobs.train_editor import train_editors
from malmen.results.run import Run

ROOT = Path(__file__).parents[2]
DOCUMENTED = re.search(r"```yaml\n(qwen2:.*?)```", (ROOT / "docs" / "adding-a-model.md").read_text(), re.DOTALL)


def raw(**model: Any) -> dict[str, Any]:
    """Return the tests' configuration with another GPT-2."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config" / "test.yaml").read_text(encoding="utf-8"))
    config["figures"]["figure5"]["editors"].remove("memit")  # which edits no encoder-decoder
    for part in ("figures", "tables"):  # another model has no rounds
        config[part] = {name: output for name, output in config[part].items() if "round" not in str(output)}
    config["models"]["gpt2"] = {"label": "It", "dataset": "zsre", "n_edits": [16], **model}
    return config


def refusal(**model: Any) -> str:
    with pytest.raises(UserError) as raised:
        load(raw(**model))
    return str(raised.value)


TINY = {"layers": 2, "hidden_size": 32, "heads": 2, "vocabulary": 600}


@pytest.mark.parametrize(
    "entry, architecture, task",
    [
        ("gpt2", "gpt2", "question_answering"),
        ("gpt-j", "gptj", "question_answering"),
        ("t5-xl", "t5", "sequence_to_sequence"),
        ("bart-base", "bart", "sequence_to_sequence"),
    ],
)
def test_a_tiny_model_takes_task_and_layers_from_an_entry(entry: str, architecture: str, task: str) -> None:
    model = load(raw(registry=entry, scratch={"architecture": architecture, **TINY})).models["gpt2"]
    assert model.task == task
    assert model.ffn.patterns() == read_registry()[entry]["ffn"]
    assert (model.dtype, model.pretrained, model.chunks.batch_size) == ("float32", None, None)


def test_every_entry_is_pinned_to_a_commit() -> None:
    for values in read_registry().values():
        assert "package" in values or re.fullmatch("[0-9a-f]{40}", values["revision"])


def test_another_commit_has_none_of_the_entrys_digests() -> None:
    for entry in ("t5-xl", "distilgpt2"):
        pinned, own = (load(raw(registry=entry, **more)).models["gpt2"] for more in ({}, {"revision": "0" * 40}))
        assert pinned.sha256 or pinned.pickle
        assert (own.sha256, own.pickle, own.download_bytes, own.pretrained) == (None, None, None, pinned.pretrained)
    same = load(raw(registry="t5-xl", revision=read_registry()["t5-xl"]["revision"])).models["gpt2"]
    assert same.pickle_to_convert and same.pickle_to_convert["dtype"] == "bfloat16"


def test_a_pickle_in_place_of_safetensors_has_none_of_their_digests() -> None:
    pickle = {"file": "pytorch_model.bin", "bytes": 1, "sha256": "0" * 64}
    model = load(raw(registry="gpt-j", pickle=pickle)).models["gpt2"]
    assert model.pickle and model.revision == read_registry()["gpt-j"]["revision"]
    assert (model.sha256, model.download_bytes) == (None, None)
    part = load(raw(registry="t5-xl", pickle={"sha256": "0" * 64})).models["gpt2"].pickle
    assert part and (part.bytes, part.sha256) == (11_399_285_375, "0" * 64)


def test_other_weights_keep_the_entrys_precision() -> None:
    model = load(raw(registry="gpt-j", revision="0" * 40)).models["gpt2"]
    assert (model.pretrained, model.dtype, model.task) == ("EleutherAI/gpt-j-6B", "bfloat16", "question_answering")


def test_other_weights_keep_the_entrys_precision_but_not_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = read_registry()["gpt-j"] | {"revision": "0" * 40}
    use(monkeypatch, tmp_path / "models.yaml", {"gpt-j": entry})
    model = load(raw(registry="gpt-j", pretrained=str(tmp_path))).models["gpt2"]
    assert (model.directory, model.revision, model.dtype) == (tmp_path, None, "bfloat16")


def test_the_configuration_counts_more_than_the_entry(tmp_path: Path) -> None:
    second = {"second": [r"transformer\.h\.0\.mlp\.fc_out"]}
    model = load(raw(registry="gpt-j", pretrained=str(tmp_path), dtype="float32", ffn=second)).models["gpt2"]
    assert model.dtype == "float32"
    assert model.ffn.patterns() == {"first": [r"transformer\.h\.\d+\.mlp\.fc_in"], **second}


def test_chunks_count_where_an_editor_says_nothing(tmp_path: Path) -> None:
    config = raw(registry="gpt2", pretrained=str(tmp_path), chunks={"batch_size": 5})
    config["editors"]["mend"]["hypernetwork"]["batch_size"] = 7
    editors = load(config).models["gpt2"].editors
    assert [editors[name].batch_size for name in ("malmen", "mend", "ft", "memit")] == [5, 7, 5, 5]
    malmen = editors["malmen"]
    assert isinstance(malmen, HyperNetworkEditorSettings)
    assert (malmen.hypernetwork.rows_per_batch, malmen.hypernetwork.rank) == ("auto", 16)


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "models.gpt2.registry is 'gpt5' but must be one of bert-base, gpt2" in refusal(registry="gpt5")
    scratch = {"architecture": "t5", **TINY}
    assert "task is 'question_answering' but 't5' needs 'sequence_to_sequence'" in refusal(
        registry="gpt2", scratch=scratch
    )
    assert "models.gpt2.ffn is missing" in refusal(scratch=scratch)
    use(monkeypatch, tmp_path / "models.yaml", {"gpt2": {"colour": 1}})
    assert "models.yaml gives gpt2 the key 'colour'; known are pretrained, package" in refusal(registry="gpt2")
    (tmp_path / "models.yaml").unlink()
    assert "models.yaml cannot be read" in refusal(registry="gpt2")


def test_the_official_codes_layers_of_t5_are_an_editors_settings() -> None:
    config = raw(registry="t5-xl", scratch={"architecture": "t5", **TINY | {"layers": 3}})
    config["editors"]["official"] = {"based_on": "malmen", "label": "Official", "ffn_layers": ["first", "second"]}
    config["editors"]["official"]["last_blocks"] = 2
    names = names_edited(load(config), "official")
    expected = {
        f"{stack}.block.{block}.layer.{layer}.DenseReluDense.{name}"
        for stack, layer in (("encoder", 1), ("decoder", 2))
        for block in (1, 2)
        for name in ("wi_0", "wo")
    }
    assert set(names) == expected and len(names) == 8


def test_gate_and_up_are_edited_together_where_a_configuration_names_both(tmp_path: Path) -> None:
    """The comment in the registry says so."""
    both = [rf"model\.layers\.\d+\.mlp\.{name}_proj" for name in ("gate", "up")]
    config = raw(registry="llama-3-8b", pretrained=str(tmp_path), ffn={"first": both})
    config["editors"]["rledit"] = {"based_on": "malmen", "label": "RLEdit's layers", "ffn_layers": ["first"]}
    config["editors"]["rledit"]["blocks"] = [0, 1]
    model = load(config).models["gpt2"]
    layers = edited_layers(later_model("llama").module, model.ffn.patterns(), model.editors["rledit"])
    expected = {f"model.layers.{block}.mlp.{name}_proj" for block in (0, 1) for name in ("gate", "up")}
    assert {layer.name for layer in layers} == expected


def names_edited(config: Config, editor: str) -> list[str]:
    """Return the layers that an editor edits in the tiny T5 of a configuration."""
    model = config.models["gpt2"]
    return [layer.name for layer in edited_layers(tiny_model("t5").module, model.ffn.patterns(), model.editors[editor])]


def use(monkeypatch: pytest.MonkeyPatch, path: Path, entries: dict[str, Any]) -> None:
    """Let a file of the registry's entries and these be the registry."""
    path.write_text(yaml.safe_dump(read_registry() | entries), encoding="utf-8")
    monkeypatch.setattr(registry, "REGISTRY", path)


@pytest.fixture
def qwen2(tmp_path: Path) -> Path:
    """A tiny random Qwen2 as an ordinary directory."""
    tokenizer = tiny_tokenizer("gpt2")
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    config = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, initializer_range=0.3, **shape)
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "qwen2")
    tokenizer.save_pretrained(tmp_path / "qwen2")
    return tmp_path / "qwen2"


def test_a_qwen2_is_edited_by_the_entry_of_the_documentation_alone(
    qwen2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DOCUMENTED
    use(monkeypatch, tmp_path / "models.yaml", yaml.safe_load(DOCUMENTED[1]))
    model = load(raw(registry="qwen2", pretrained=str(qwen2), dtype="float32")).models["gpt2"]
    spec = ModelSpec("qwen2", model.label, model.dataset, model.task, model.dtype, qwen2, model.ffn.patterns())
    tuples = edit_tuples("gpt2", 28)
    write_jsonl(tmp_path / "tuples.jsonl", map(as_json, tuples))
    settings = model.editors["malmen"]
    assert isinstance(settings, HyperNetworkEditorSettings)
    runs = [Run(16, seed=0)]
    train_editors(spec, settings, tmp_path / "tuples.jsonl", runs, tmp_path / "editor", Machine())
    editor = EditorSpec("malmen", settings, trained=(tmp_path / "editor",))
    measured, *_ = evaluate_editor(spec, editor, tmp_path / "tuples.jsonl", runs, {}, Machine())
    (run,) = measured.runs
    assert run.status == "ok" and len(run.groups) == 1
    layers = edited_layers(spec.load(Machine()).module, spec.ffn, settings)
    assert [layer.name for layer in layers] == ["model.layers.1.mlp.down_proj"]


def as_json(item: EditTuple) -> dict[str, Any]:
    pair = {name: vars(getattr(item, name)) for name in ("edit", "unrelated")}
    return {"id": item.id, "equivalent": list(item.equivalent), **pair}
