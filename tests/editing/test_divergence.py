"""A number that is not finite ends an edit, a training or a measurement where it first appears, by name."""

import pytest
import torch
from tiny_models import edit_tuples, encoded_group, ffn_layers

from malmen.editing.editor import HyperNetworkEditor
from malmen.editing.evaluation import Evaluation, score
from malmen.editing.memit import MemitEditor
from malmen.editing.statistics import collect_second_moments, sequences_of
from malmen.editing.training import MetaTrainer, encode_edits
from malmen.errors import DivergedError, UserError
from malmen.models.language_model import LanguageModel
from malmen.settings import HyperNetworkSettings, MemitSettings, TrainingSettings

MEMIT = MemitSettings(steps=2, prefix_starts=())


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


def test_memits_search_for_hidden_states(gpt2: LanguageModel) -> None:
    layers = ffn_layers(gpt2)[:1]
    edits = encode_edits(gpt2, edit_tuples("gpt2", 3))
    moments = {layers[0].name: torch.eye(layers[0].shape[0])}
    spoil(gpt2, "transformer.ln_f.bias")
    with pytest.raises(DivergedError, match="the loss by which MEMIT looks for a hidden state is not finite"):
        MemitEditor(layers, MEMIT, moments, seed=0).shifts(gpt2, edits)


def test_memits_keys(gpt2: LanguageModel) -> None:
    (layer,) = ffn_layers(gpt2)[:1]
    editor = MemitEditor([layer], MEMIT, {layer.name: torch.eye(layer.shape[0])}, seed=0)
    keys, residual = torch.ones(3, layer.shape[0]), torch.ones(3, layer.shape[1])
    for what, bad in (("keys", keys), ("hidden states", residual)):
        bad[1, 1] = torch.inf
        with pytest.raises(DivergedError, match=f"the {what} at layer {layer.name} are not finite"):
            editor.shift(layer, keys, residual)
        bad[1, 1] = 1


def test_second_moments(gpt2: LanguageModel) -> None:
    layers = ffn_layers(gpt2)
    spoil(gpt2, "transformer.wte.weight", torch.inf)
    with pytest.raises(UserError, match=f"The keys of layer {layers[0].name} are not finite on this text"):
        collect_second_moments(gpt2, layers, sequences_of(gpt2, ["Where did Ada"], 100), 2)


def test_answers(model: LanguageModel) -> None:
    examples = encoded_group(model, 4).edits
    assert len(score(model, examples, 2).correct) == 4
    for parameter in model.module.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(DivergedError, match="an output of the model is not a number"):
        score(model, examples, 2)


def test_an_unedited_model_that_answers_nothing_is_one_sentence(gpt2: LanguageModel) -> None:
    spoil(gpt2, "transformer.ln_f.bias")
    with pytest.raises(UserError, match="an output of the model is not a number"):
        Evaluation(gpt2, edit_tuples("gpt2", 4), 2, seed=0)
