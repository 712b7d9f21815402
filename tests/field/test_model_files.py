"""Model directories as people have them: other weights beside the model's, parts, mixed precision, ties, revisions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from own_facts_files import into_parts, write_facts
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import architecture_of, edit_tuples, save_model, tiny_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

import malmen
from malmen.config.base import Architecture, Dtype
from malmen.errors import UserError
from malmen.models import hub
from malmen.models.fact_checker import FactChecker
from malmen.models.identity import dtype_for_editing, model_digests, stored_precision, weights_digest
from malmen.own_facts.edited import EditedModel, check_out
from malmen.own_facts.model import find_model
from malmen.runtime.model_files import weights_among, weights_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def forget_determinism() -> Any:
    """A loaded model makes torch deterministic; leave it as it was for other tests."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def saved(folder: Path, architecture: Architecture = "gpt2", dtype: torch.dtype = torch.float32) -> Path:
    return save_model(folder, tiny_model(architecture, dtype))


# Which files hold the weights.


def half(folder: Path, path: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, path)


OTHERS = [f"{name}.safetensors" for name in ("model.fp16", "consolidated", "adapter_model", "a-00001-of-00002")]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("parts", [1, 3])
def test_other_weights_beside_the_models_change_nothing(tmp_path: Path, name: str, parts: int) -> None:
    folder = saved(tmp_path / "m")
    half(folder, tmp_path / "half")
    if parts > 1:
        into_parts(folder, parts)
    before = model_digests(folder)
    (tmp_path / "half").rename(folder / name)
    assert model_digests(folder) == before and stored_precision(folder) == "F32"
    assert name not in [file.name for file in weights_files(folder)] and len(weights_files(folder)) == parts
    assert weights_among(path.name for path in folder.iterdir()) == [file.name for file in weights_files(folder)]
    edited(folder, tmp_path / "out")
    assert not (tmp_path / "out" / name).exists()


@pytest.mark.parametrize("name", OTHERS)
def test_where_only_other_weights_are_that_is_said(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(UserError, match=rf"(?s){folder}.*only {name}.*download"):
        find_model(folder)


def test_an_adapter_is_named_as_one(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "lab/base"}', encoding="utf-8")
    with pytest.raises(UserError, match=r"adapter of lab/base.*merge"):
        find_model(folder)


def test_an_adapter_beside_a_model_is_refused(tmp_path: Path) -> None:
    """With peft, transformers would read the adapter's own base in place of the edited weights."""
    folder = saved(tmp_path / "m")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "lab/base"}', encoding="utf-8")
    with pytest.raises(UserError, match=r"adapter beside a model.*merge"):
        find_model(folder)


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("blobs/gone")
    with pytest.raises(UserError, match=r"model\.safetensors that links to a file that is not there"):
        find_model(folder)


@pytest.mark.parametrize(
    "about", [{}, {"dtype": "F32"}, {"dtype": "F32", "shape": 3}, {"dtype": "F32", "shape": ["x"]}]
)
def test_a_header_that_does_not_describe_its_tensors_is_refused(tmp_path: Path, about: dict[str, Any]) -> None:
    folder = saved(tmp_path / "m")
    header = json.dumps({"a": {"data_offsets": [0, 4], **about}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    with pytest.raises(UserError, match="not a safetensors file"):
        find_model(folder)


def test_a_model_without_its_head_says_what_it_was_saved_as(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "gptj")
    tensors = {name: t for name, t in load_file(folder / "model.safetensors").items() if "lm_head" not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["GPTJForSequenceClassification"]}))
    with pytest.raises(UserError, match=r"saved as GPTJForSequenceClassification.*GPTJForCausalLM needs"):
        malmen.load_model(folder, device="cpu")


def test_an_architecture_that_transformers_does_not_have_is_no_unreadable_file(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    (folder / "config.json").write_text('{"model_type": "gpt99"}', encoding="utf-8")
    with pytest.raises(UserError, match="gpt99"):
        find_model(folder)


def test_a_model_with_broken_weights_is_named_before_the_edit(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.0.mlp.c_fc.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"unedited model .*m fails.*damaged"):
        edited(folder, tmp_path / "out")


# Where an edited model goes.


def test_a_directory_that_cannot_be_replaced_is_refused_before_any_work(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").touch()
    for place, reason in {"/proc/x/y": "cannot be made", str(tmp_path / "file" / "x"): "cannot be made"}.items():
        with pytest.raises(UserError, match=reason):
            check_out(Path(place), False, [])
    monkeypatch.chdir(tmp_path)
    for place in (".", "..", "/proc"):
        with pytest.raises(UserError, match="mount point or the current directory"):
            check_out(Path(place), True, [])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("report", ["{}", '{"weights": "0", "editor": "ft", "metrics": {}}'])
def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path, report: str) -> None:
    """Many programs write a report.json."""
    (tmp_path / "out" / "work").mkdir(parents=True)
    (tmp_path / "out" / "report.json").write_text(report)
    with pytest.raises(UserError, match="no edited model, or other folders"):
        check_out(tmp_path / "out", True, [])


def test_the_whole_file_comes_before_the_index(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    index = {"weight_map": {"a": "gone-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert [file.name for file in weights_files(folder)] == ["model.safetensors"]
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "gpt2"


def test_the_configuration_may_name_the_file(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    half(folder, folder / "other.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "other.safetensors"}))
    assert [file.name for file in weights_files(folder)] == ["other.safetensors"]
    assert stored_precision(folder) == "F16"


def test_precision_is_that_of_most_weights_not_of_most_tensors(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(99, dtype=torch.bfloat16), **{f"norm{i}": torch.ones(2) for i in range(5)}}
    save_file(tensors, tmp_path / "model.safetensors")
    assert dtype_for_editing(tmp_path) == "bfloat16"
    save_file({"w": torch.ones(9, dtype=torch.int8), "s": torch.ones(1)}, tmp_path / "model.safetensors")
    for stated in (None, "float32"):
        with pytest.raises(UserError, match=r"are I8.*quantised"):
            dtype_for_editing(tmp_path, stated)


# Saving an edited model.


def edited(folder: Path, out: Path, layers: str | None = None) -> EditedModel:
    """Fine-tune a model on facts and save it."""
    model = malmen.load_model(folder, device="cpu")
    facts = malmen.read_facts(write_facts(out.with_suffix(".jsonl"), architecture_of(model.language_model), 6))
    tuning = malmen.FineTuning(layers=[layers] if layers else (), last_blocks=1, epochs=2, learning_rate=0.05)
    result = malmen.edit(model, facts, tuning)
    result.save(out)
    return result


def all_tensors(folder: Path) -> dict[tuple[str, str], torch.Tensor]:
    """Return the tensors of a directory by file and name."""
    return {(file.name, name): tensor for file in weights_files(folder) for name, tensor in load_file(file).items()}


def changed(before: Path, after: Path) -> set[str]:
    """Return the names of tensors that differ; files, names, precisions and metadata do not."""
    old, new = all_tensors(before), all_tensors(after)
    assert old.keys() == new.keys() and all(old[key].dtype == new[key].dtype for key in old)
    for file in weights_files(before):
        with safe_open(file, "pt") as first, safe_open(after / file.name, "pt") as second:
            assert first.metadata() == second.metadata()
    return {name for (file, name), tensor in old.items() if not torch.equal(tensor, new[file, name])}


def assert_surroundings_are_copied(before: Path, after: Path) -> None:
    names = {path.name for path in before.iterdir()}
    assert {path.name for path in after.iterdir()} == names | {
        "README.md",
        "edit.delta",
        "report.html",
        "report.json",
        "report.md",
    }
    for name in names - {file.name for file in weights_files(before)}:
        assert (before / name).read_bytes() == (after / name).read_bytes(), name


CLASSES: dict[Architecture, Any] = {
    "gpt2": AutoModelForCausalLM,
    "gptj": AutoModelForCausalLM,
    "bert": FactChecker,
    "t5": AutoModelForSeq2SeqLM,
    "bart": AutoModelForSeq2SeqLM,
}


@pytest.mark.parametrize("architecture", CLASSES)
@pytest.mark.parametrize("parts", [1, 4])
def test_only_edited_tensors_change(tmp_path: Path, architecture: Architecture, parts: int) -> None:
    folder = saved(tmp_path / "m", architecture)
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    if parts > 1:
        into_parts(folder, parts)
    result = edited(folder, tmp_path / "out")
    assert changed(folder, tmp_path / "out") == {f"{name}.weight" for name in result.shifts}
    assert_surroundings_are_copied(folder, tmp_path / "out")
    again = CLASSES[architecture].from_pretrained(tmp_path / "out").eval()
    with result.applied() as module:
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), module.parameters(), strict=True))
        prompt = result.model.tokenizer(edit_tuples(architecture, 1)[0].edit.prompt, return_tensors="pt")
        tokens = {key: prompt[key] for key in ("input_ids", "attention_mask")}
        more = {"decoder_input_ids": tokens["input_ids"]} if architecture in ("t5", "bart") else {}
        assert torch.allclose(logits(again(**tokens, **more)), logits(module(**tokens, **more)), atol=1e-3)


def logits(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.logits


def test_precisions_that_are_mixed_stay_so(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", dtype=torch.bfloat16)
    tensors = load_file(folder / "model.safetensors")
    mixed = {name: tensor.float() if tensor.dim() == 1 else tensor for name, tensor in tensors.items()}
    save_file(mixed, folder / "model.safetensors", metadata={"format": "pt"})
    result = edited(folder, tmp_path / "out")
    assert changed(folder, tmp_path / "out") == {f"{name}.weight" for name in result.shifts}
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16, torch.float32}


def test_names_without_the_prefix_of_the_model_are_found(tmp_path: Path) -> None:
    """GPT-2 was published so."""
    folder = saved(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    plain = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    result = edited(folder, tmp_path / "out")
    expected = {f"{name.removeprefix('transformer.')}.weight" for name in result.shifts}
    assert changed(folder, tmp_path / "out") == expected


def test_a_tensor_that_lies_in_two_parts_changes_in_both(tmp_path: Path) -> None:
    """transformers reads one of the two, whatever the index says."""
    folder = saved(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    twice = {name: tensor for name, tensor in tensors.items() if "mlp" in name}
    into_parts(folder, 2)
    for part in folder.glob("*.safetensors"):
        save_file(load_file(part) | twice, part, metadata={"format": "pt"})
    assert_reads_as_edited(edited(folder, tmp_path / "out"), tmp_path / "out")


@pytest.mark.parametrize("other", ["a.{}", "{}.old", "a.b.{}"])
def test_a_copy_under_another_name_is_not_taken_for_the_tensor(tmp_path: Path, other: str) -> None:
    folder = saved(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    copies = {other.format(name): tensor.clone() for name, tensor in tensors.items()}
    save_file(copies | tensors, folder / "model.safetensors", metadata={"format": "pt"})
    result = edited(folder, tmp_path / "out")
    assert changed(folder, tmp_path / "out") == {f"{name}.weight" for name in result.shifts}
    assert_reads_as_edited(result, tmp_path / "out")


def assert_reads_as_edited(result: EditedModel, folder: Path) -> None:
    """The directory holds the edited weights as transformers reads them."""
    again = AutoModelForCausalLM.from_pretrained(folder).eval()
    with result.applied() as module:
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), module.parameters(), strict=True))


@pytest.mark.parametrize("place", ["generation_config.json", "config.json"])
def test_generation_settings_are_kept_even_where_they_contradict_each_other(tmp_path: Path, place: str) -> None:
    folder = saved(tmp_path / "m")
    settings = {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "max_length": 40}
    file = folder / place
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(before | settings), encoding="utf-8")
    if place == "config.json":
        (folder / "generation_config.json").unlink(missing_ok=True)
    edited(folder, tmp_path / "out")
    assert_surroundings_are_copied(folder, tmp_path / "out")


def test_another_precision_is_written_by_transformers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved(tmp_path / "m", dtype=torch.bfloat16)
    generation = {"do_sample": False, "temperature": 0.6}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    model = malmen.load_model(folder, device="cpu", dtype="float32")
    facts = malmen.read_facts(write_facts(tmp_path / "facts.jsonl", "gpt2", 6))
    malmen.edit(model, facts, malmen.FineTuning(last_blocks=1, epochs=1)).save(tmp_path / "out")
    assert "written again" in caplog.text
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text(encoding="utf-8")) == generation
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.float32


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
@pytest.mark.parametrize("dtype, stated", [("float32", None), ("bfloat16", "bfloat16")])
def test_float16_is_loaded_edited_and_saved_in_another_precision_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, architecture: Architecture, dtype: Dtype, stated: Dtype | None
) -> None:
    folder = saved(tmp_path / "m", architecture)
    half(folder, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["dtype"]  # As before transformers 5.
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}), encoding="utf-8")
    stored, precision = load_file(folder / "model.safetensors"), getattr(torch, dtype)

    model = malmen.load_model(folder, device="cpu", dtype=stated)
    weights = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    assert all(torch.equal(weights[name], tensor.to(precision)) for name, tensor in stored.items())
    facts = malmen.read_facts(write_facts(tmp_path / "facts.jsonl", architecture, 6))
    result = malmen.edit(model, facts, malmen.FineTuning(last_blocks=1, epochs=2, learning_rate=0.05))
    with result.applied():
        edited = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.module.state_dict().items())
    result.save(tmp_path / "out")

    warning, *others = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert ["cannot be undone" in other for other in others] == [True] * (dtype == "bfloat16")  # It rounds the weights.
    assert all(fact in warning for fact in (str(folder), "float16", "65,504", f"saved in {dtype}"))
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["dtype"] == dtype
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == dtype and "torch_dtype" not in config
    again = CLASSES[architecture].from_pretrained(tmp_path / "out")
    assert again.dtype == precision
    assert all(torch.equal(tensor, edited[name]) for name, tensor in again.state_dict().items())
    changed = {f"{name}.weight" for name in result.shifts}
    assert changed and {n for n, t in again.state_dict().items() if not torch.equal(t, weights[n])} == changed


def test_what_is_said_of_the_unedited_weights_is_not_copied(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    record = {"model": "lab/m", "revision": COMMIT, "weights_sha256": weights_digest(folder)}
    (folder / "source.json").write_text(json.dumps(record), encoding="utf-8")
    edited(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "source.json").exists()


# Revisions.


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with a model whose branch main is known, and no network."""
    place = tmp_path / "hub" / "models--acme--tiny"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    saved(place / "snapshots" / COMMIT)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "snapshot_download", lambda _id, revision, **_: str(place / "snapshots" / revision))
    return place


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:7], COMMIT, COMMIT.upper()])
@pytest.mark.usefixtures("cached")
def test_a_moving_revision_is_its_commit(caplog: pytest.LogCaptureFixture, revision: str | None) -> None:
    with caplog.at_level("INFO", "malmen"):
        found = find_model("acme/tiny", revision)
    assert (found.name, found.revision) == ("acme/tiny", COMMIT)
    said = [message for message in caplog.messages if COMMIT in message]
    assert len(said) == (revision is None or revision.lower() != COMMIT)


@pytest.mark.usefixtures("cached")
def test_a_revision_that_is_nowhere_is_refused() -> None:
    with pytest.raises(UserError, match=r"acme/tiny at v9.*HF_HUB_OFFLINE"):
        find_model("acme/tiny", "v9")


@pytest.mark.parametrize("name", ["/none/m", "./m", "a/b/c", "~/m"])
def test_a_path_is_not_asked_for_on_the_hub(name: str) -> None:
    with pytest.raises(UserError, match="There is no directory"):
        find_model(name)


# Tokenizers.


def test_a_tokenizer_without_files_is_loaded(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "t5")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}', encoding="utf-8")
    assert malmen.load_model(folder, device="cpu").tokenizer("a", add_special_tokens=False)["input_ids"] == [100]


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
def test_a_tokenizer_of_special_tokens_alone_is_none(tmp_path: Path, architecture: Architecture) -> None:
    folder = saved(tmp_path / "m", architecture)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match=f"{folder} has no tokenizer"):
        malmen.load_model(folder, device="cpu")
