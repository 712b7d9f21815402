"""Tiny random models of every family that transformers has a causal language model for."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

# Under the names that most configurations know, through transformers' own attribute map.
TINY: dict[str, Any] = {
    "vocab_size": 0,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "ffn_hidden_size": 48,
    "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "n_inner": 48,
    "max_position_embeddings": 96,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "shared_intermediate_size": 40,
    "moe_shared_expert_intermediate_size": 40,
    "shared_experts_intermediate_size": 40,
    "intermediate_size_mlp": 48,
    "dense_intermediate_size": 48,
    "expert_ffn_hidden_size": 24,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_expert_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "qk_head_dim": 16,
    "rotary_dim": 4,
    "first_k_dense_replace": 1,
    "sliding_window": 32,
    "word_embed_proj_dim": 32,
    "d_model": 32,
    "decoder_layers": 3,
    "encoder_layers": 3,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "embedding_size": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "state_size": 8,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "index_topk": 64,
    "num_codebooks": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny_config(family: str, vocabulary: int, **own: Any) -> PretrainedConfig:
    """Return a configuration of a family with the sizes of :data:`TINY` in place of its own, as far as it has them."""
    kind = CONFIG_MAPPING[family]
    usual = kind()
    text = usual.get_text_config(decoder=True) if not usual.is_encoder_decoder else usual
    wanted = {**TINY, "vocab_size": vocabulary, **own}
    given = {name: value for name, value in wanted.items() if hasattr(text, name) or name in own}
    given = {
        name: value
        for name, value in given.items()
        if value is None or getattr(text, name, 0) is not None or name in own
    }
    if family in ("x",):
        ...
    if text is usual:
        return kind(**given)
    key = next(name for name in usual.sub_configs if getattr(usual, name) is text)
    return kind(**{key: given})


def tiny(family: str, vocabulary: int, dtype: torch.dtype = torch.float32, **own: Any) -> Any:
    config = tiny_config(family, vocabulary, **own)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype)
