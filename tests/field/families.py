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
    "dff": 48,
    "emb_dim": 32,
    "chunk_size": 8,
    "mamba_chunk_size": 8,
    "layer_group_size": 2,
    "vocab_size_per_layer_input": 0,
    "hidden_size_per_layer_input": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


LINEAR: dict[str, Any] = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_kv_shared_layers": 1,
        "layer_types": ["full_attention"] * 3,
        "activation_sparsity_pattern": [0.0] * 3,
        "laurel_rank": 8,
    },
    "gpt_neo": {"attention_types": [[["global"], 3]]},
    "gpt_neox_japanese": {"intermediate_multiple_size": 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "mpt": {"expansion_ratio": 2},
    "qwen3_5": LINEAR,
    "qwen3_5_moe": LINEAR,
    "qwen3_5_moe_text": LINEAR,
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR,
    "zaya": {"num_experts_per_tok": 1},
}
"""What single families need besides."""

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
OUTER: dict[str, dict[str, Any]] = {
    "gemma3": {"vision_config": VISION, "mm_tokens_per_image": 4},
    "got_ocr2": {"vision_config": VISION},
    "git": {"vision_config": VISION},
}
"""The parts that are not for text, of families that see, too."""

NOT_MADE: dict[str, str] = {
    "blt": "its vocabulary of byte groups makes it large whatever its size",
    "cohere_compass_text": "transformers 5.23 cannot make it smaller",
    "cpmant": "it reads its own encoding of text",
    "dbrx": "transformers 5.23 cannot make it",
    "dots3_note": "its blocks differ in size",
    "dots3_note_text": "its blocks differ in size",
    "emu3": "transformers saves its language model as a type that it cannot load as one",
    "gemma3n": "it needs the library timm",
    "gemma4": "its blocks differ in size",
    "gemma4_assistant": "it drafts for another model",
    "gemma4_text": "its blocks differ in size",
    "gemma4_unified": "its blocks differ in size",
    "gemma4_unified_assistant": "it drafts for another model",
    "gemma4_unified_text": "its blocks differ in size",
    "kimi_linear": "its attention is large whatever its size",
    "mllama": "transformers saves its language model as a type that it cannot load as one",
    "moss_transcribe_diarize": "it reads sound",
    "musicgen": "it writes sound",
    "musicgen_melody": "it writes sound",
    "phi4_multimodal": "its parts for images and sound make it large",
    "prophetnet": "it predicts several tokens at once",
    "reformer": "it hashes tokens into chunks",
    "roc_bert": "its pronunciations and shapes make it large",
    "xlnet": "it predicts tokens in any order",
    "xmod": "it needs a language beside the text",
    "zamba": "transformers 5.23 cannot make it smaller",
    "zamba2": "transformers 5.23 cannot make it smaller",
}
"""Families of which no tiny model was made, and why."""


def tiny_config(family: str, vocabulary: int) -> PretrainedConfig:
    """Return a configuration of a family with the sizes of :data:`TINY` in place of its own, as far as it has them."""
    kind: Any = CONFIG_MAPPING[family]
    usual = kind()
    text = usual if usual.is_encoder_decoder else usual.get_text_config(decoder=True)
    own = {"vocab_size": vocabulary, "vocab_size_per_layer_input": vocabulary}
    if has(text, "kv_lora_rank"):
        own["num_key_value_heads"] = TINY["num_attention_heads"]
    wanted = {name: value for name, value in {**TINY, **own}.items() if has(text, name)} | OWN.get(family, {})
    if text is not usual:
        wanted = {next(name for name in usual.sub_configs if getattr(usual, name) is text): wanted}
    config: PretrainedConfig = kind(**wanted, **OUTER.get(family, {}))
    return config


def has(config: PretrainedConfig, name: str) -> bool:
    """Return whether a configuration has a value that can be set; most that are None mean that there is none."""
    try:
        value = getattr(config, name)
    except (AttributeError, ValueError):  # of models whose blocks differ
        return False
    computed = isinstance(getattr(type(config), name, None), property) and getattr(type(config), name).fset is None
    return not computed and (value is not None or name in ("head_dim", "num_key_value_heads", "n_inner"))


def tiny(family: str, vocabulary: int) -> Any:
    """Return a tiny random model of a family, in float32."""
    config = tiny_config(family, vocabulary)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():  # so that every part matters
                weight.normal_(std=0.1)
    return model
