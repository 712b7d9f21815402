"""A number that is not finite ends an edit, a training or a measurement where it first appears, by name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trained_apart
from reliability import record, record_restored
from tiny_models import architecture_of, edit_tuples, encoded_group, ffn_layers, tiny_editor

from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.config.memit import MemitSettings
from malmen.data.tuples import PromptAnswer
from malmen.editing.evaluation import Evaluation, score
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.memit.covariance import collect_key_covariance, encode_texts
from malmen.editing.memit.editor import MemitEditor
from malmen.editing.training import MetaTrainer, encode_edits
from malmen.errors import DivergedError, UserError
from malmen.models.language_model import LanguageModel
from malmen.runtime.checkpoint import Saving

SETTINGS = HyperNetworkSettings(rank=6, learning_rate=1e-2)
SUMMED = replace(SETTINGS, aggregation="sum")
MEMIT = MemitSettings(steps=2, prefix_starts=())


def stopped() -> None:
    record(
        "a number that is not finite, in training",
        "NaN in keys, value gradients, a shift or a loss",
        1,
        "stopped before that step; the message names the layer",
    )


def named() -> None:
    record(
        "a number that is not finite, in an edit or an evaluation",
        "NaN or infinity in MEMIT's loss, keys or hidden states, in the covariance, in a model's outputs",
        1,
        "stopped; the message names it",
    )


def spoil(model: LanguageModel, parameter: str, value: float = torch.nan) -> None:
    model.module.get_parameter(parameter).fill_(value)


@pytest.mark.parametrize(
    "parameter, what", [("transformer.h.1.ln_2.bias", "keys"), ("transformer.h.2.ln_1.bias", "value gradients")]
)
def test_cached_rows(gpt2: LanguageModel, parameter: str, what: str) -> None:
    layers = ffn_layers(gpt2)[:1]
    editor = HyperNetworkEditor.create(layers, HyperNetworkSettings(rank=6), seed=0)
    trainer = MetaTrainer(gpt2, editor, TrainingSettings())
    before = {name: tensor.clone() for name, tensor in editor.networks.state_dict().items()}
    spoil(gpt2, parameter)
    with pytest.raises(DivergedError, match=f"the {what} of layer {layers[0].name} are not finite"):
        trainer.step(encoded_group(gpt2, 20))
    # The normalisers too are those of the last good step.
    assert all(torch.equal(tensor, before[name]) for name, tensor in editor.networks.state_dict().items())
    stopped()


@pytest.mark.parametrize("settings", [SETTINGS, SUMMED], ids=["malmen", "mend"])
def test_a_shift_that_is_not_finite_stops_training_without_a_step(
    model: LanguageModel, settings: HyperNetworkSettings
) -> None:
    editor = tiny_editor(model, settings)
    with torch.no_grad():
        editor.network(editor.slots[1]).eta[1] = torch.nan
    before = [parameter.clone() for parameter in editor.networks.parameters()]
    with pytest.raises(DivergedError, match=f"shift of layer {editor.layers[1].name}"):
        MetaTrainer(model, editor, TrainingSettings()).step(encoded_group(model, 20))
    for parameter, old in zip(editor.networks.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, old, rtol=0, atol=0, equal_nan=True)
    stopped()


def test_a_loss_that_is_not_finite_stops_training_without_a_step(gpt2: LanguageModel) -> None:
    editor = tiny_editor(gpt2, SETTINGS)
    # Only an equivalent prompt is long enough to meet the broken position.
    equivalent = gpt2.encode([PromptAnswer("Where did Ada Lund write a song? " * 4, "Cor")] * 20)
    group = encoded_group(gpt2, 20)._replace(equivalent=equivalent)
    longest = max(len(example.tokens) for example in (*group.edit, *group.unrelated))
    assert longest < len(equivalent[0].tokens)
    gpt2.module.get_parameter("transformer.wpe.weight")[longest:] = torch.nan
    before = [parameter.clone() for parameter in editor.networks.parameters()]
    with pytest.raises(DivergedError, match="not finite"):
        MetaTrainer(gpt2, editor, TrainingSettings()).step(group)
    assert all(torch.equal(p, old) for p, old in zip(editor.networks.parameters(), before, strict=True))
    stopped()


def test_a_singular_system_is_divergence(bert: LanguageModel) -> None:
    editor = tiny_editor(bert, replace(SETTINGS, regularised=False))
    with pytest.raises(DivergedError, match=rf"in layer {editor.layers[0].name}, .*20 keys in 64 dimensions"):
        editor.shifts(bert, encoded_group(bert, 20).edit)
    record(
        "a singular system",
        "20 keys in 64 dimensions, without regularisation",
        1,
        "refused; the message names layer and shape",
    )


@pytest.mark.parametrize("expected", [True, False])
def test_a_training_that_diverges_is_a_result_where_one_expects_it(expected: bool, tmp_path: Path) -> None:
    trained_apart.prepare(tmp_path)
    loose = replace(trained_apart.SETTINGS.hypernetwork, regularised=False)
    settings = replace(trained_apart.SETTINGS, hypernetwork=loose, may_diverge=expected)
    saving, out = Saving(tmp_path / "state"), tmp_path / "out"
    if expected:
        trained_apart.train(tmp_path, out, saving, settings)
        assert '"reason": "training diverged at step 1: ' in (out / "m8_seed0" / "training.json").read_text()
    else:
        with pytest.raises(UserError, match=r"training diverged at step 1: .*its last state is "):
            trained_apart.train(tmp_path, out, saving, settings)
        assert not out.exists() and (tmp_path / "state" / "m8_seed0.safetensors").is_file()
    record(
        "a training that diverges",
        "no regularisation, with `may_diverge` and without",
        1,
        "with it, the result says so; without, an error names the last good state",
    )


def test_memits_search_for_hidden_states(gpt2: LanguageModel) -> None:
    layers = ffn_layers(gpt2)[:1]
    edits = encode_edits(gpt2, edit_tuples("gpt2", 3))
    covariance = {layers[0].name: torch.eye(layers[0].shape[0])}
    spoil(gpt2, "transformer.ln_f.bias")
    with pytest.raises(DivergedError, match="hidden state is not finite"):
        MemitEditor(layers, MEMIT, covariance, seed=0).shifts(gpt2, edits)
    named()


def test_memits_keys(gpt2: LanguageModel) -> None:
    (layer,) = ffn_layers(gpt2)[:1]
    editor = MemitEditor([layer], MEMIT, {layer.name: torch.eye(layer.shape[0])}, seed=0)
    keys, residual = torch.ones(3, layer.shape[0]), torch.ones(3, layer.shape[1])
    for what, bad in (("keys", keys), ("hidden states", residual)):
        bad[1, 1] = torch.inf
        with pytest.raises(DivergedError, match=f"the {what} at layer {layer.name} are not finite"):
            editor.shift(layer, keys, residual)
        bad[1, 1] = 1
    named()


def test_a_key_that_is_not_finite(gpt2: LanguageModel) -> None:
    layers = ffn_layers(gpt2)
    spoil(gpt2, "transformer.wte.weight", torch.inf)
    with pytest.raises(UserError, match=f"The keys of layer {layers[0].name} are not finite on this text"):
        collect_key_covariance(gpt2, layers, encode_texts(gpt2, ["Where did Ada"], 100), 2)
    named()


def test_answers(model: LanguageModel) -> None:
    examples = encoded_group(model, 4).edit
    assert len(score(model, examples, 2).correct) == 4
    for parameter in model.module.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(DivergedError, match="an output of the model is not a number"):
        score(model, examples, 2)
    named()


def test_an_unedited_model_that_answers_nothing_is_one_sentence(gpt2: LanguageModel) -> None:
    spoil(gpt2, "transformer.ln_f.bias")
    with pytest.raises(UserError, match="an output of the model is not a number"):
        Evaluation(gpt2, edit_tuples("gpt2", 4), 2, seed=0)
    named()


def test_the_weights_come_back_when_what_was_edited_answers_nothing(model: LanguageModel) -> None:
    layers = ffn_layers(model)
    evaluation = Evaluation(model, edit_tuples(architecture_of(model), 4), 4, seed=0)
    before = [layer.weight.clone() for layer in layers]
    with pytest.raises(DivergedError, match="an output of the model is not a number"):
        evaluation.after(layers, {layer.name: torch.full(layer.shape, torch.nan) for layer in layers}, slice(0, 4))
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(layers, before, strict=True))
    record_restored()
