"""Tiny random models of later decoder-only families, each with what is peculiar to it, and a tokenizer like its own."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tiny_models import edit_tuples
from tokenizer_kinds import byte_level, prepending, unigram
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from malmen.models.language_model import LanguageModel
from malmen.models.tasks import TASKS
from malmen.own_facts.facts import Fact

WINDOW = 8
"""How many tokens a sliding window holds; sequences are longer."""

FACTS = [Fact(prompt, t.edit.answer) for t in edit_tuples("gpt2", 28) for prompt in (t.edit.prompt, *t.equivalent)]


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        tokenizer: makes a tokenizer like the family's.
        settings: what its configuration says beside its size.
        first: the first layer of each of its feed-forward networks.
        second: the second layer.
    """

    tokenizer: Callable[[], PreTrainedTokenizerBase]
    settings: dict[str, Any]
    first: str = r"model\.layers\.\d+\.mlp\.gate_proj"
    second: str = r"model\.layers\.\d+\.mlp\.down_proj"


GROUPED = {"num_key_value_heads": 2}
SLIDING = {"sliding_window": WINDOW}
WIDE_HEADS = {"head_dim": 6}
TIED = {"tie_word_embeddings": True}
SOFT_CAPS = {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0, "query_pre_attn_scalar": 6}

FAMILIES: dict[str, Family] = {
    "llama": Family(lambda: byte_level("<s> $A", FACTS, padding=False), GROUPED),
    "mistral": Family(lambda: prepending(FACTS), GROUPED | SLIDING),
    "qwen2": Family(lambda: byte_level(facts=FACTS), GROUPED | TIED),
    "qwen3": Family(lambda: byte_level(facts=FACTS), GROUPED | TIED | WIDE_HEADS),
    "gemma2": Family(
        lambda: unigram("never", FACTS, template="<s> $A"), GROUPED | SLIDING | WIDE_HEADS | SOFT_CAPS | TIED
    ),
    "gpt2": Family(
        lambda: byte_level(facts=FACTS, padding=False),
        {},
        r"transformer\.h\.\d+\.mlp\.c_fc",
        r"transformer\.h\.\d+\.mlp\.c_proj",
    ),
    "opt": Family(
        lambda: byte_level("</s> $A", FACTS),
        {"word_embed_proj_dim": 16},
        r"model\.decoder\.layers\.\d+\.fc1",
        r"model\.decoder\.layers\.\d+\.fc2",
    ),
    "gpt_neox": Family(
        lambda: byte_level(facts=FACTS, padding=False),
        {},
        r"gpt_neox\.layers\.\d+\.mlp\.dense_h_to_4h",
        r"gpt_neox\.layers\.\d+\.mlp\.dense_4h_to_h",
    ),
    "phi3": Family(lambda: prepending(FACTS, "$A"), GROUPED | SLIDING, first=r"model\.layers\.\d+\.mlp\.gate_up_proj"),
}


def later_model(family: str, dtype: torch.dtype = torch.float64) -> LanguageModel:
    """Return a model of 3 blocks of width 16, of which every operation matters."""
    tokenizer = FAMILIES[family].tokenizer()
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    size = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 96}
    size |= {("ffn_dim" if family == "opt" else "n_inner" if family == "gpt2" else "intermediate_size"): 24}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **size, **special, **FAMILIES[family].settings)
    module: Any = AutoModelForCausalLM.from_config(config).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.5 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return LanguageModel(module, tokenizer, TASKS["question_answering"])


class InFloat64(TorchFunctionMode):
    """Lets a model compute in float64 also what transformers computes in float32 whatever the model's precision is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch with float64 in the place of float32."""
        wide = [torch.float64 if value is torch.float32 else value for value in args]
        named = {key: torch.float64 if value is torch.float32 else value for key, value in (kwargs or {}).items()}
        widened: Any = Tensor.double if func is Tensor.float else func
        return widened(*wide, **named)


def model_peculiarities(model: LanguageModel) -> list[str]:
    """Return what distinguishes a model from a plain Transformer, as its configuration and its modules have it."""
    config, module = model.text_config, model.module
    names = [name for name, _ in module.named_parameters()]
    heads, n = config.num_attention_heads, config.num_hidden_layers
    windows = getattr(config, "layer_types", ["sliding_attention"] * n).count("sliding_attention")
    biases = [
        "mlp" in name or "fc" in name
        for name in names
        if re.search(r"(proj|attn|fc\d?|query_key_value|4h)\.bias", name)
    ]
    found = {
        "grouped attention": getattr(config, "num_key_value_heads", heads) < heads,
        "heads together wider than the hidden state": getattr(config, "head_dim", 0) * heads > config.hidden_size,
        f"sliding windows in {windows} of {n} blocks": getattr(config, "sliding_window", None),
        "soft-capped logits and attention": getattr(config, "final_logit_softcapping", None),
        "norms of queries and keys": any("q_norm" in name for name in names),
        "norms after the feed-forward network": any("post_feedforward_layernorm" in name for name in names),
        "attention beside the feed-forward network": getattr(config, "use_parallel_residual", False),
        "gate and up in one matrix": any("gate_up_proj" in name for name in names),
        "learned positions": any("wpe" in name or "embed_positions" in name for name in names),
        "weights stored as (d_in, d_out)": any(type(part).__name__ == "Conv1D" for part in module.modules()),
        "tied embeddings": module.get_input_embeddings().weight is module.get_output_embeddings().weight,
        "no biases": not biases,
        "biases in attention alone": biases and not any(biases),
        "biases": any(biases),
    }
    return [text for text, present in found.items() if present]


def tokenizer_peculiarities(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return what distinguishes a tokenizer."""
    own = tokenizer("write", add_special_tokens=False)["input_ids"]
    found = {
        "adds a beginning": tokenizer("write")["input_ids"] != own,
        "puts a space before a text": tokenizer.convert_ids_to_tokens(own)[0].startswith(("\u2581", "\u0120")),
        "has no padding token": tokenizer.pad_token is None,
    }
    return [text for text, present in found.items() if present] or ["adds nothing"]
