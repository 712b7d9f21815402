"""Layers that an editor would take for something else are refused, and so are shortcuts that a model does not allow."""

import re
from collections.abc import Callable
from typing import Any, TypeAlias, get_args

import pytest
import torch
from tiny_models import ffn_layers, tiny_model
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM

from malmen.config.base import Tokens
from malmen.config.finetuning import FineTuningSettings
from malmen.editing.blocks import Block, FrozenPrefix
from malmen.editing.capture import recording
from malmen.editing.feed_forward import choose_layers
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layer_checks import check_layers
from malmen.editing.layers import EditedLayer, select_layers
from malmen.editing.memit.covariance import collect_key_covariance
from malmen.editing.probe import probe_examples
from malmen.errors import UserError
from malmen.models.language_model import LanguageModel
from malmen.models.linear_layers import linear_layers

Network: TypeAlias = Callable[[Tensor], Tensor]


class Around(nn.Module):
    """A feed-forward network with something done before and after it."""

    def __init__(self, inner: nn.Module, run: Callable[[Network, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.run = inner, run

    def forward(self, hidden: Tensor) -> Tensor:
        return self.run(self.inner, hidden)


def flattened(inner: Network, hidden: Tensor) -> Tensor:
    """As in OPT and in shared experts."""
    return inner(hidden.reshape(-1, hidden.shape[-1])).view_as(hidden)


def positions_first(inner: Network, hidden: Tensor) -> Tensor:
    """As in XLNet: the rows are all there, in another order."""
    return inner(hidden.transpose(0, 1).contiguous()).transpose(0, 1)


def routed(inner: Network, hidden: Tensor) -> Tensor:
    """As in an expert: some tokens only."""
    result = torch.zeros_like(hidden)
    result[hidden[..., 0] > 0] = inner(hidden[hidden[..., 0] > 0])
    return result


def averaging(inner: Network, hidden: Tensor) -> Tensor:
    """Padding changes what every token gets."""
    return inner(hidden + hidden.mean((0, 1)))


def overwritten(inner: Network, hidden: Tensor) -> Tensor:
    """As in Falcon: what the layer returned is used up."""
    return inner(hidden).mul_(0.5)


def twice(inner: Network, hidden: Tensor) -> Tensor:
    """As where blocks share their weights."""
    return inner(inner(hidden))


def never(_inner: Network, hidden: Tensor) -> Tensor:
    """As in a part for images."""
    return hidden


def with_middle(run: Callable[[Network, Tensor], Tensor]) -> tuple[LanguageModel, EditedLayer]:
    """Return a GPT-2 with a changed feed-forward network in the second of its three blocks, and its second layer."""
    model = tiny_model("gpt2")
    block: Any = model.module.get_submodule("transformer.h.1")
    block.mlp = Around(block.mlp, run)
    name = "transformer.h.1.mlp.inner.c_proj"
    return model, EditedLayer(name, linear_layers(model.module)[name])


def test_rows_are_found_in_whatever_shape_they_come() -> None:
    model, layer = with_middle(lambda inner, hidden: inner(hidden))
    written, written_layer = with_middle(overwritten)
    check_layers(written, [written_layer], "all")
    flat, flat_layer = with_middle(flattened)
    check_layers(flat, [flat_layer], "all")
    check_layers(flat, [flat_layer], "answer")
    examples = probe_examples(model)
    expected, _ = collect_key_covariance(model, [layer], examples, 1)
    for size in (1, 2):
        torch.testing.assert_close(collect_key_covariance(flat, [flat_layer], examples, size)[0], expected)


@pytest.mark.parametrize(
    "run, reason",
    [
        (positions_first, "what else is in the batch"),
        (averaging, "what else is in the batch"),
        (routed, "no row belongs to a known token"),
        (twice, "more than once"),
        (never, "did not run"),
    ],
)
def test_other_layers_are_refused_with_the_reason(run: Callable[[Network, Tensor], Tensor], reason: str) -> None:
    model, layer = with_middle(run)
    for tokens in get_args(Tokens):
        with pytest.raises(UserError, match=reason) as refused:
            check_layers(model, [layer], tokens)
        assert run is averaging or layer.name in str(refused.value)


def test_a_layer_that_does_not_compute_its_product_is_refused() -> None:
    model = tiny_model("gpt2")
    layer = ffn_layers(model)[0]
    layer.module.register_forward_hook(lambda _module, _inputs, output: output.round())
    with pytest.raises(UserError, match=f"{layer.name} does not compute"):
        check_layers(model, [layer], "all")


def test_fine_tuning_refuses_a_layer_that_no_answer_needs() -> None:
    model, layer = with_middle(never)
    edits = probe_examples(model)
    for layers in ([layer], [layer, *ffn_layers(model, last=1)]):
        with pytest.raises(UserError, match=layer.name):
            FineTuningEditor(layers, FineTuningSettings(1), 0).shifts(model, edits)
    model, layer = with_middle(twice)
    assert FineTuningEditor([layer], FineTuningSettings(1), 0).shifts(model, edits)[layer.name].norm() > 0


def test_a_recorded_layer_names_itself_where_it_did_not_run() -> None:
    with recording([]) as seen, pytest.raises(UserError, match=r"Layer h\.0 did not run"):
        seen["h.0"]


# ------------------------------------------------------------------------------------------------ what is no layer


def tiny_mixtral() -> nn.Module:
    shape: dict[str, Any] = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    return MixtralForCausalLM(MixtralConfig(vocab_size=450, num_hidden_layers=2, num_local_experts=2, **shape))


@pytest.mark.parametrize("pattern", [r"model\.layers\.\d+\.mlp\.experts", r"model\.layers\.\d+\.mlp\.experts\..*"])
def test_fused_experts_are_refused_by_name(pattern: str) -> None:
    with pytest.raises(UserError, match=r"model\.layers\.0\.mlp\.experts.* all experts in one parameter"):
        select_layers(tiny_mixtral(), pattern)


def test_a_model_of_experts_has_no_default_layers(gpt2: LanguageModel) -> None:
    model = LanguageModel(tiny_mixtral(), gpt2.tokenizer, gpt2.task)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.experts.* all experts in one parameter"):
        choose_layers(model, (), 2)


def test_a_layer_that_shares_its_weight_is_refused() -> None:
    model = tiny_model("gpt2")
    with pytest.raises(UserError, match=r"lm_head.* shares its weight with transformer\.wte"):
        select_layers(model.module, "lm_head")
    assert "lm_head" not in linear_layers(model.module)
    first, second = ffn_layers(model)
    second.module.weight = first.module.weight
    for one, other in ((first, second), (second, first)):
        with pytest.raises(UserError, match=f"{one.name}, .* shares its weight with {other.name}"):
            select_layers(model.module, re.escape(one.name))


def test_a_quantised_layer_is_refused() -> None:
    model = tiny_model("gpt2")
    packed = nn.Linear(16, 4)
    packed.weight = nn.Parameter(torch.zeros(32, 1, dtype=torch.uint8), requires_grad=False)
    model.module.get_submodule("transformer.h.2").mlp.extra = packed  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"transformer\.h\.2\.mlp\.extra.*quantised"):
        select_layers(model.module, r"transformer\.h\.\d+\.mlp\.extra")


# ---------------------------------------------------------------------------------------------------- shortcuts


class Remembers(nn.Module):
    """A last block that also reads what an earlier block computed in the same run."""

    def __init__(self, inner: nn.Module, earlier: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, [torch.zeros(())]
        earlier.mlp.register_forward_hook(lambda _module, _inputs, output: self.seen.__setitem__(0, output))  # type: ignore

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.inner(hidden + self.seen[0], *args, **kwargs)


def test_blocks_that_later_ones_need_are_not_skipped() -> None:
    model = tiny_model("gpt2")
    layers, blocks = ffn_layers(model, last=1), model.module.get_submodule("transformer.h")
    blocks[2] = Remembers(blocks[2], blocks[0])  # type: ignore[index, operator]
    assert FrozenPrefix.of(model, layers).last is None
    block = Block.at(model, "transformer.h", 1)
    assert not block.skips
    batch = model.collate(probe_examples(model), range(2))
    with torch.no_grad(), block.recording() as outputs:
        expected = model.answer_logits(batch)
    state = outputs[0] if isinstance(outputs[0], Tensor) else outputs[0][0]
    with torch.no_grad(), block.resuming(outputs[0], lambda: state):
        torch.testing.assert_close(model.answer_logits(batch), expected)
    with torch.no_grad(), block.resuming(outputs[0], lambda: 2 * state):
        assert not torch.allclose(model.answer_logits(batch), expected)
