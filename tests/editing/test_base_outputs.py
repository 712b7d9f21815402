"""What runs share: read from files, it gives what computing it gives."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import architecture_of, edit_tuples, ffn_layers, tiny_model
from torch import Tensor

from malmen.config.base import Architecture, Tokens
from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.data.tuples import EditTuple
from malmen.editing.base_outputs import BaseOutputs, CachedBaseOutputs, CacheKey, LiveBaseOutputs
from malmen.editing.capture import capture
from malmen.editing.evaluation import Evaluation
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.rows import FileRows, whole
from malmen.editing.training import MetaTrainer, draw_groups, encode_group
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.results.training import MetaLosses

MALMEN = HyperNetworkSettings(rank=6, learning_rate=1e-2, batch_size=5, rows_per_batch=7)
MEND = replace(MALMEN, aggregation="sum")


def cached(model: LanguageModel, tuples: list[EditTuple], tokens: Tokens, folder: Path) -> CachedBaseOutputs:
    """Write a cache and open it again."""
    layers = ffn_layers(model)
    contents = CacheKey("digest", [layer.name for layer in layers], tokens)
    written = CachedBaseOutputs.of_tuples(model, layers, tokens, tuples)
    written.write(folder, contents, 3)
    assert sum(file.stat().st_size for file in folder.glob("*.rows")) == written.size
    return CachedBaseOutputs.open(folder, model, layers, contents)


def trained(
    model: LanguageModel, settings: HyperNetworkSettings, tuples: list[EditTuple], base_outputs: BaseOutputs
) -> tuple[HyperNetworkEditor, list[MetaLosses]]:
    editor = HyperNetworkEditor.create(ffn_layers(model), settings, seed=0)
    editor.networks.to(torch.promote_types(model.module.dtype, torch.float32))
    trainer = MetaTrainer(model, editor, TrainingSettings(meta_learning_rate=1e-2), base_outputs=base_outputs)
    groups = draw_groups(model, tuples, 8, 3, random.Random(0))
    return editor, [trainer.step(group) for group in groups]


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, tensor in expected.items():
        assert (found[name].double() - tensor.double()).norm() <= tolerance * tensor.double().norm(), name


@pytest.mark.parametrize("settings", [MALMEN, MEND, replace(MALMEN, tokens="all")], ids=["malmen", "mend", "all"])
def test_training_and_evaluation_are_the_same(
    model: LanguageModel, tmp_path: Path, settings: HyperNetworkSettings
) -> None:
    tuples = edit_tuples(architecture_of(model), 18)
    cache = cached(model, tuples, settings.tokens, tmp_path)
    expected, losses = trained(model, settings, tuples, LiveBaseOutputs(model, ffn_layers(model)))
    found, found_losses = trained(model, settings, tuples, cache)
    for one, other in zip(losses, found_losses, strict=True):
        assert (other.generalisation, other.locality) == pytest.approx((one.generalisation, one.locality), rel=1e-9)
    assert_close(found.networks.state_dict(), expected.networks.state_dict(), 1e-9)
    plain = Evaluation(model, tuples, 4, seed=0).run(expected, slice(0, 8)).metrics
    assert Evaluation(model, tuples, 4, 0, cache).run(expected, slice(0, 8)).metrics == pytest.approx(plain)


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "gptj"])
def test_what_is_read_is_what_is_computed(architecture: Architecture, tmp_path: Path) -> None:
    model = tiny_model(architecture)
    tuples = edit_tuples(architecture, 18)
    group = encode_group(model, tuples, random.Random(1))
    cache, computed = cached(model, tuples, "answer", tmp_path), LiveBaseOutputs(model, ffn_layers(model))
    editor = HyperNetworkEditor.create(ffn_layers(model), MALMEN, seed=0)
    for edit in group.edit[:4]:
        for name, rows in computed.capture(editor, [edit]).items():
            other = cache.capture(editor, [edit])[name]
            torch.testing.assert_close(whole(other.keys), whole(rows.keys), rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(whole(other.gradients), whole(rows.gradients), rtol=1e-10, atol=1e-12)
    for batch in model.batches([*group.equivalent, *group.unrelated], 7):
        expected = model.answer_logits(batch)
        torch.testing.assert_close(cache.before(batch)[0], expected, rtol=1e-10, atol=1e-12)
        with cache.after_prefix(batch):
            torch.testing.assert_close(model.answer_logits(batch), expected, rtol=1e-10, atol=1e-12)


def test_the_same_in_float32(tmp_path: Path) -> None:
    model = tiny_model("gpt2", torch.float32)
    tuples = edit_tuples("gpt2", 18)
    expected, _ = trained(model, MALMEN, tuples, LiveBaseOutputs(model, ffn_layers(model)))
    found, _ = trained(model, MALMEN, tuples, cached(model, tuples, "answer", tmp_path))
    assert_close(found.networks.state_dict(), expected.networks.state_dict(), 1e-4)


def test_a_model_in_bfloat16_is_cached_as_it_computes(tmp_path: Path) -> None:
    model = tiny_model("gpt2", torch.bfloat16)
    tuples = edit_tuples("gpt2", 6)
    edits = encode_group(model, tuples, random.Random(0)).edit
    cache, editor = cached(model, tuples, "answer", tmp_path), HyperNetworkEditor.create(ffn_layers(model), MALMEN, 0)
    assert {file.dtype for file in cache.files.values()} == {torch.bfloat16}
    for name, rows in cache.capture(editor, edits[:1]).items():
        computed = capture(model, editor.layers, edits[:1], editor.settings)[name]
        assert torch.equal(whole(rows.keys), whole(computed.keys))
        assert whole(rows.gradients).dtype == torch.float32


def test_nothing_before_the_edits_is_run(gpt2: LanguageModel, tmp_path: Path) -> None:
    tuples = edit_tuples("gpt2", 18)
    cache = cached(gpt2, tuples, "answer", tmp_path)
    cache.block_output()
    runs: list[str] = []
    for number, name in ((0, "earlier"), (1, "edited")):
        module = gpt2.module.get_submodule(f"transformer.h.{number}.mlp.c_fc")
        module.register_forward_hook(lambda *_, name=name: runs.append(name))
    trained(gpt2, MALMEN, tuples, cache)
    assert set(runs) == {"edited"}


def test_rows_of_a_cache_go_to_files_too(gpt2: LanguageModel, tmp_path: Path) -> None:
    tuples = edit_tuples("gpt2", 6)
    editor = HyperNetworkEditor.create(ffn_layers(gpt2), replace(MALMEN, rows_bytes=0), seed=0)
    edits = encode_group(gpt2, tuples, random.Random(0)).edit
    captured = cached(gpt2, tuples, "answer", tmp_path).capture(editor, edits)
    assert all(isinstance(rows.keys, FileRows) for rows in captured.values())


def test_files_hold_raw_rows_of_the_shapes_in_the_index(gpt2: LanguageModel, tmp_path: Path) -> None:
    cache = cached(gpt2, edit_tuples("gpt2", 6), "answer", tmp_path)
    shapes = json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))["shapes"]
    assert shapes.keys() == cache.files.keys()
    for name, shape in shapes.items():
        rows = np.fromfile(tmp_path / f"{name}.rows").reshape(shape)
        assert torch.equal(torch.from_numpy(rows), whole(cache.files[name]))


def test_another_models_cache_is_refused(gpt2: LanguageModel, tmp_path: Path) -> None:
    cached(gpt2, edit_tuples("gpt2", 6), "answer", tmp_path)
    layers = ffn_layers(gpt2)
    contents = CacheKey("another", [layer.name for layer in layers], "answer")
    with pytest.raises(UserError, match=f"{tmp_path} was made for another model"):
        CachedBaseOutputs.open(tmp_path, gpt2, layers, contents)


@pytest.mark.parametrize("name", ["index.json", "keys_0.rows", "states.rows"])
def test_a_broken_cache_is_refused(gpt2: LanguageModel, tmp_path: Path, name: str) -> None:
    cached(gpt2, edit_tuples("gpt2", 6), "answer", tmp_path)
    layers = ffn_layers(gpt2)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{tmp_path} cannot be read as a cache"):
        CachedBaseOutputs.open(tmp_path, gpt2, layers, CacheKey("digest", [layer.name for layer in layers], "answer"))
