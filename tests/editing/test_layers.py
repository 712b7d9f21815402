"""Choosing layers, and shifting their weights for a while."""

import pytest
import torch
from tiny_models import FFN, architecture_of, ffn_layers, tiny_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from malmen.config.base import FfnPatterns
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.memit import MemitEditorSettings
from malmen.editing.layers import EditedLayer, PostEditWeights, edited_layers, select_layers
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel


def names(layers: list[EditedLayer]) -> list[str]:
    return [layer.name for layer in layers]


def test_layers_are_chosen_by_their_whole_name_in_the_models_order(gpt2: LanguageModel) -> None:
    (pattern,) = FFN["gpt2"]["second"]
    everything = [f"transformer.h.{i}.mlp.c_proj" for i in range(3)]
    assert names(select_layers(gpt2.module, pattern)) == everything
    assert names(select_layers(gpt2.module, pattern, 2)) == everything[1:]
    assert names(select_layers(gpt2.module, r"transformer\.h\.1\.mlp\.c_(fc|proj)")) == [
        "transformer.h.1.mlp.c_fc",
        "transformer.h.1.mlp.c_proj",
    ]


@pytest.mark.parametrize("pattern, last", [("mlp", None), (r"transformer\.h\.\d+\.mlp\.c_proj", 4), ("h.0.ln_1", None)])
def test_a_pattern_that_names_too_few_layers_is_refused_with_examples(
    gpt2: LanguageModel, pattern: str, last: int | None
) -> None:
    with pytest.raises(UserError, match=r"names \d linear layers? .*'transformer\\.h\\.\\d\+\\.mlp\\.c_proj'"):
        select_layers(gpt2.module, pattern, last)


def test_where_there_are_fewer_layers_than_last_blocks_the_remedy_is_named(gpt2: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"names 1 linear layer .* lower last_blocks \(--last-blocks\) to 1"):
        select_layers(gpt2.module, r"transformer\.h\.2\.mlp\.c_proj", 6)


def test_shapes_are_d_in_by_d_out_in_both_orientations(bert: LanguageModel, gpt2: LanguageModel) -> None:
    for model in (bert, gpt2):
        assert {layer.shape for layer in ffn_layers(model, "first")} == {(16, 64)}
        assert {layer.shape for layer in ffn_layers(model, "second")} == {(64, 16)}


def test_an_editors_layers_are_those_of_its_settings_in_the_models_order(model: LanguageModel) -> None:
    patterns: FfnPatterns = {kind: names[::-1] for kind, names in FFN[architecture_of(model)].items()}
    settings = HyperNetworkEditorSettings(label="both", ffn_layers=("second", "first"), last_blocks=2)
    first, second = ffn_layers(model, "first"), ffn_layers(model, "second")
    expected = [name for pair in zip(names(first), names(second), strict=True) for name in pair]
    assert len(expected) == (8 if model.two_stacks else 4)
    assert names(edited_layers(model.module, patterns, settings)) == expected


@pytest.mark.parametrize("module", [nn.Linear(3, 2), Conv1D(2, 3)], ids=["Linear", "Conv1D"])
def test_a_shifted_layer_adds_u_s_to_its_value(module: nn.Module) -> None:
    layer = EditedLayer("it", module.requires_grad_(False))
    generator = torch.Generator().manual_seed(0)
    u, shift = torch.randn(5, 3, generator=generator), torch.randn(3, 2, generator=generator)
    before = module(u)
    with PostEditWeights([layer], {"it": shift}).applied():
        torch.testing.assert_close(module(u), before + u @ shift)
    assert torch.equal(module(u), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_bit_for_bit_however_often_they_go(dtype: torch.dtype) -> None:
    model = tiny_model("bert", dtype)
    layers = ffn_layers(model)
    before = [layer.weight.clone() for layer in layers]
    weights = PostEditWeights(layers, {layer.name: torch.full(layer.shape, 0.123) for layer in layers})
    for _ in range(5):
        with weights.applied() as edited:
            for weight, original in zip(edited, before, strict=True):
                assert weight.requires_grad and weight.dtype == dtype
                assert torch.equal(weight, (original.float() + 0.123).to(dtype))
        for layer, original in zip(layers, before, strict=True):
            assert torch.equal(layer.weight, original) and not layer.weight.requires_grad


def test_weights_come_back_when_the_work_on_them_fails(bert: LanguageModel) -> None:
    (layer,) = ffn_layers(bert, last=1)
    before = layer.weight.clone()
    with (
        pytest.raises(RuntimeError, match="no more"),
        PostEditWeights([layer], {layer.name: torch.ones(layer.shape)}).applied(),
    ):
        assert not torch.equal(layer.weight, before)
        raise RuntimeError("no more")
    assert torch.equal(layer.weight, before) and not layer.weight.requires_grad


def test_chosen_blocks_stand_in_place_of_the_last_ones(gpt2: LanguageModel) -> None:
    patterns: FfnPatterns = FFN["gpt2"]
    settings = MemitEditorSettings(label="MEMIT", blocks=(0, 2))
    assert names(edited_layers(gpt2.module, patterns, settings)) == [
        "transformer.h.0.mlp.c_proj",
        "transformer.h.2.mlp.c_proj",
    ]
    beyond = MemitEditorSettings(label="MEMIT", blocks=(1, 3))
    with pytest.raises(UserError, match="MEMIT edits block 3, but the model has 3 layers"):
        edited_layers(gpt2.module, patterns, beyond)
