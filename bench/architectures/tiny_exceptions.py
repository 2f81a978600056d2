"""Settings of small configs that do not follow from their names and defaults, by type."""

from collections.abc import Mapping

# Settings without which the defaults are not a config.
AT_FIRST: Mapping[str, dict[str, object]] = {
    # Their defaults have neither images nor sound.
    "gemma4": {"vision_config": {}, "audio_config": {}},
    "gemma4_unified": {"vision_config": {}, "audio_config": {}},
}

_EXPERTS: dict[str, object] = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
_HYBRIDS = ["hybrid_sliding", "hybrid", "hybrid_sliding", "hybrid", "hybrid_sliding"]
_KEYS_SHARED: dict[str, object] = {
    "num_hidden_layers": 5, "num_kv_shared_layers": 2, "intermediate_size": 96,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"],
}  # fmt: skip
_TWO_HYBRID: dict[str, object] = {  # the second has the weights of the first
    "num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
}  # fmt: skip
_LOGITS_AS_THEY_ARE: dict[str, object] = {"logit_scale": 1.0}
_BYTES: dict[str, object] = {"hidden_size_global": 64, "num_key_value_heads": 4}

CHANGES: Mapping[str, dict[str, object]] = {
    # Their defaults leave out what their code reads.
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}}
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}},
    "deepseek_v2": _EXPERTS,
    "dots1": _EXPERTS | {"first_k_dense_replace": 1},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16, "num_experts": 8, "moe_topk": 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "lfm2_moe": {"num_hidden_layers": 3, "layer_types": ["conv", "conv", "full_attention"], "num_dense_layers": 1},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_budget": 8, "indexer_compress_ratio": 2, "indexer_head_dim": 16, "indexer_kv_heads": 1,
        "indexer_n_heads": 2, "ngram_vocab_size_base": 64, "ple_layer_ids": [1], "ngram_size": 2, "heads_per_ngram": 2,
        "eos_token_id": 2,
    },
    "xmod": {"default_language": "en_XX"},
    # Sizes that follow from other sizes.
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "blt_local_encoder": _BYTES,
    "blt_local_decoder": _BYTES,
    "dots3_note_text": {
        "head_dim": 32,
        "per_layer_config": {
            2: {"num_attention_heads": 2, "num_key_value_heads": 2, "qk_nope_head_dim": 24, "kv_lora_rank": 32}
        },
    },
    "falcon_h1": {"mamba_d_head": 16},
    "mamba2": {"num_heads": 8},
    "reformer": {"axial_pos_embds_dim": [16, 48], "axial_pos_shape": [8, 64]},
    "zamba": _TWO_HYBRID
    | {"attention_hidden_size": 128, "attention_head_dim": 32, "num_key_value_heads": 4, "n_mamba_heads": 2},
    "zamba2": _TWO_HYBRID,
    "minicpm3": {"dim_model_base": 64},
    # Factors that would make the logits all alike.
    "cohere": _LOGITS_AS_THEY_ARE,
    "cohere2": _LOGITS_AS_THEY_ARE,
    "cohere2_moe": _LOGITS_AS_THEY_ARE,
    "inkling_text": {"logits_mup_width_multiplier": 1.0},
    # Kinds of layers that only show where there are several.
    "bamba": {"num_hidden_layers": 3, "attn_layer_indices": [1]},
    "flint": {"num_hidden_layers": 3, "layer_types": ["full_attention", "full_attention", "sliding_attention"],
              "mlp_only_layers": [0]},
    "gemma3n_text": _KEYS_SHARED | {"activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0, 0.0]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "inkling2_text": {"num_hidden_layers": 5, "layer_types": _HYBRIDS, "n_layers_per_attn_res_block": 2},
    "inkling2_loop_text": {
        "num_hidden_layers": 5, "layer_types": _HYBRIDS, "n_layers_per_attn_res_block": 2,
        "loop_layer_index_start": 2, "loop_layer_index_end": 4,
    },
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 4, "attn_layer_offset": 2},
    "mllama_text_model": {"num_hidden_layers": 3, "cross_attention_layers": [1]},
    "recurrent_gemma": {"num_hidden_layers": 3},
    # The network for images of the default has a size that its name says.
    "gemma3n_vision": {"architecture": "test_resnet"},
}  # fmt: skip
