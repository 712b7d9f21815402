"""Editing models of later families: grouped attention, sliding windows, soft caps, tied embeddings, other tokenizers.

That every family of transformers is captured, edited and saved is in tests/field/test_families.py. Here the separated
meta-gradient is compared with autograd through everything, on sequences longer than the windows, and what an edit
leaves behind is compared bit for bit. A table of docs/adding-a-model.md has the numbers, which the test writes if
``MALMEN_RECORD_FAMILIES`` is set.
"""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from later_models import FAMILIES, WINDOW, InFloat64, later_model, model_peculiarities, tokenizer_peculiarities
from page_table import PageTable
from tiny_models import edit_tuples
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from malmen.config.base import Tokens
from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.config.model_registry import read_registry
from malmen.editing.capture import capture
from malmen.editing.concatenated import meta_gradient_concatenated
from malmen.editing.layer_checks import check_layers
from malmen.editing.layers import EditedLayer, PostEditWeights, select_layers
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.rows import whole
from malmen.editing.training import EncodedGroup, MetaTrainer, draw_groups, encode_group, meta_gradient
from malmen.models.fact_checker import FactChecker
from malmen.models.language_model import LanguageModel
from malmen.models.linear_layers import linear_layers

N = 24
TOLERANCE = 1e-10
SETTINGS = HyperNetworkSettings(rank=4, blocks=1, learning_rate=1e-2, batch_size=5)
TABLE = PageTable(
    "tests/editing/test_later_families.py",
    ("Family", "Model", "Tokenizer", "Difference at answers", "Difference at all tokens"),
    measured=2,
)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def _in_float64() -> Iterator[None]:
    with InFloat64():
        yield


def both_layers(model: LanguageModel, family: str, last: int = 2) -> list[EditedLayer]:
    """Return both feed-forward layers of the last blocks."""
    patterns = FAMILIES[family].first, FAMILIES[family].second
    return [layer for pattern in patterns for layer in select_layers(model.module, pattern, last)]


def group_of(model: LanguageModel) -> EncodedGroup:
    """Return a group of edits, some of them longer than a window."""
    group = encode_group(model, edit_tuples("gpt2", N), random.Random(0))
    lengths = {len(example.tokens) for example in group.edit}
    assert len(lengths) > 3 and max(lengths) > WINDOW + 3
    return group


def in_float64(layers: list[EditedLayer], tokens: Tokens) -> HyperNetworkEditor:
    editor = HyperNetworkEditor.create(layers, HyperNetworkSettings(**vars(SETTINGS) | {"tokens": tokens}), seed=0)
    editor.networks.double()
    return editor


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the distance between two tensors, relative to the second, which is not zero."""
    assert expected.norm() > 0
    return float((found - expected).norm() / expected.norm())


@pytest.mark.usefixtures("_in_float64")
def test_the_separated_meta_gradient_is_that_of_autograd(family: str) -> None:
    model = later_model(family)
    group, differences = group_of(model), []
    for tokens in ("answer", "all"):
        editor = in_float64(both_layers(model, family), tokens)
        trainer = MetaTrainer(model, editor, TrainingSettings(meta_learning_rate=1e-2))
        for drawn in draw_groups(model, edit_tuples("gpt2", N), N, 2, random.Random(1)):
            trainer.step(drawn)
        gradients = []
        for function in (meta_gradient, meta_gradient_concatenated):
            editor.networks.zero_grad(set_to_none=True)
            function(model, editor, capture(model, editor.layers, group.edit, editor.settings), group, 0.7)
            gradients.append([parameter.grad for parameter in editor.networks.parameters()])
        differences.append(max(distance(*pair) for pair in zip(*gradients, strict=True)))
    assert max(differences) < TOLERANCE
    about = ", ".join(model_peculiarities(model)), ", ".join(tokenizer_peculiarities(model.tokenizer))
    TABLE.check([family, *about, *(f"{difference:.0e}" for difference in differences)])


@pytest.mark.usefixtures("_in_float64")
def test_keys_and_gradients_do_not_depend_on_the_padding(family: str) -> None:
    model = later_model(family)
    layers, edits = both_layers(model, family), group_of(model).edit
    check_layers(model, layers, "all")
    one, many = (capture(model, layers, edits, HyperNetworkSettings(tokens="all", batch_size=size)) for size in (1, N))
    for layer in layers:
        for kind in ("keys", "gradients"):
            found, expected = (whole(getattr(rows[layer.name], kind)) for rows in (many, one))
            assert distance(found, expected) < TOLERANCE, f"{kind} of {layer.name}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_after_an_edit_the_model_is_the_same_bit_for_bit(family: str, dtype: torch.dtype) -> None:
    model = later_model(family, dtype)
    layers, group = both_layers(model, family), group_of(model)
    editor = HyperNetworkEditor.create(layers, SETTINGS, seed=0)
    before, answers = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}, answered(model)
    assert MetaTrainer(model, editor, TrainingSettings()).step(group).gradient_norm > 0
    weights = PostEditWeights(layers, editor.shifts(model, group.edit))
    with weights.applied():
        assert all((layer.weight != before[f"{layer.name}.weight"]).any() for layer in layers)
        assert not torch.equal(answered(model), answers)
        untouched = model.module.state_dict().keys() - {f"{layer.name}.weight" for layer in layers}
        assert all(torch.equal(model.module.state_dict()[name], before[name]) for name in untouched)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())
    assert torch.equal(answered(model), answers)


@torch.no_grad()
def answered(model: LanguageModel) -> Tensor:
    return model.answer_logits(model.collate(group_of(model).edit, range(N)))


def test_every_family_is_in_the_table() -> None:
    assert set(TABLE.rows()) == set(FAMILIES)


BLOCKS = 2
MODEL_TYPES = {
    "bert": "bert",
    "minilm": "bert",
    "distilgpt2": "gpt2",
    "gpt2": "gpt2",
    "gpt-j": "gptj",
    "t5": "t5",
    "bart": "bart",
    "llama": "llama",
    "smollm2": "llama",
    "mistral": "mistral",
    "qwen2.5": "qwen2",
    "qwen3": "qwen3",
    "gemma-2": "gemma2",
}
"""The model type of the registry's entries, by how their names begin."""


@pytest.mark.parametrize("entry", read_registry())
def test_the_registrys_names_are_those_of_the_architecture(entry: str) -> None:
    """Each pattern names one layer of each block, in one stack, as wide as the entry says."""
    values = read_registry()[entry]
    shape, stacks = values["shape"], 2 if values["task"] == "sequence_to_sequence" else 1
    module = with_shape(next(kind for name, kind in MODEL_TYPES.items() if entry.startswith(name)), values)
    for kind, width in (("first", ("hidden_size", "ffn_size")), ("second", ("ffn_size", "hidden_size"))):
        found = [select_layers(module, pattern) for pattern in values["ffn"][kind]]
        assert [len(layers) for layers in found] == [BLOCKS] * stacks
        assert {layer.shape for layers in found for layer in layers} == {(shape[width[0]], shape[width[1]])}
    of_ffn = {shape["hidden_size"], shape["ffn_size"]}
    widths = [EditedLayer(name, layer).shape for name, layer in linear_layers(module).items()]
    assert sum(set(width) == of_ffn for width in widths) == (3 if shape.get("gated") else 2) * BLOCKS * stacks


def with_shape(architecture: str, entry: dict[str, Any]) -> nn.Module:
    """Return a model of two blocks of an entry's size, without memory for its weights."""
    shape = entry["shape"]
    sizes = dict.fromkeys(("num_hidden_layers", "num_decoder_layers", "encoder_layers", "decoder_layers"), BLOCKS)
    sizes |= dict.fromkeys(
        ("intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner"), shape["ffn_size"]
    )
    sizes |= {"hidden_size": shape["hidden_size"], "vocab_size": shape["vocabulary"], "num_attention_heads": 4}
    config: Any = AutoConfig.for_model(architecture, feed_forward_proj="gated-gelu", **sizes)
    auto: Any = AutoModelForSeq2SeqLM if entry["task"] == "sequence_to_sequence" else AutoModelForCausalLM
    with torch.device("meta"):
        module: nn.Module = FactChecker(config) if entry["task"] == "fact_checking" else auto.from_config(config)
    return module
