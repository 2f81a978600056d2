"""Small values of the settings that configs of language models share, by name."""

_HIDDEN = 64
_CHANNELS = 96
_HEADS = 4
_HEAD = 16
_EXPERTS = 8
_VOCABULARY = 256
_CONTEXT = 512
_WINDOW = 8

LAYER_COUNTS = (
    "num_hidden_layers", "conf_num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks", "decoder_layers",
    "num_decoder_layers", "encoder_layers", "num_encoder_layers",
)  # fmt: skip
LISTS_NOT_BY_LAYER = ("languages",)


def _each(size: int, *names: str) -> dict[str, int]:
    return dict.fromkeys(names, size)


SIZES: dict[str, int] = {
    **_each(_VOCABULARY, "vocab_size", "vocab_size_per_layer_input", "audio_vocab_size", "unpadded_vocab_size"),
    **_each(_CONTEXT, "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length",
        "model_max_length", "max_target_positions", "max_source_positions"),
    **_each(_WINDOW, "sliding_window", "sliding_window_size", "window_size", "local_attention", "attention_chunk_size",
        "attention_window_size", "local_attention_window_len"),
    **_each(_HIDDEN, "hidden_size", "d_model", "n_embd", "emb_dim", "embedding_dim", "word_embed_proj_dim",
        "input_embedding_size", "output_embedding_size", "lru_width", "backbone_hidden_size", "adapter_in_dim",
        "adapter_input_size", "adapter_out_dim"),
    **_each(_HIDDEN, "shape_vocab_size", "pronunciation_vocab_size"),
    **_each(_HIDDEN // 2, "shape_embed_dim", "pronunciation_embed_dim", "embedding_size", "ple_embed_dim"),
    **_each(_HEADS, "num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads",
        "swa_num_attention_heads", "encoder_attention_heads", "decoder_attention_heads", "num_encoder_attention_heads",
        "num_decoder_attention_heads"),
    **_each(_HEADS // 2, "num_key_value_heads", "num_kv_heads", "kv_n_heads", "swa_num_key_value_heads",
        "num_query_groups", "index_n_heads"),
    **_each(_HEAD, "head_dim", "d_head", "dim_head", "kv_channels", "swa_head_dim", "attention_head_size",
        "index_head_dim", "d_kv", "qk_nope_head_dim", "v_head_dim", "mamba_headdim", "mamba_head_dim", "mamba_d_head"),
    **_each(_HEAD // 2, "qk_rope_head_dim", "rotary_dim", "d_rel"),
    **_each(_CHANNELS, "intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "dff",
        "dim_ff", "d_inner", "feed_forward_size", "intermediate_size_mlp", "dense_intermediate_size",
        "shared_intermediate_size"),
    **_each(_CHANNELS // 3, "moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size",
        "shared_experts_intermediate_size", "moe_shared_expert_intermediate_size"),
    **_each(_EXPERTS, "num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"),
    **_each(2, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k",
        "top_k_experts", "n_group", "num_expert_group", "zero_expert_num"),
    **_each(1, "topk_group", "first_k_dense_replace", "num_dense_layers", "n_shared_experts", "num_shared_experts"),
    **_each(2 * _HEAD, "q_lora_rank"),
    **_each(24, "kv_lora_rank", "o_lora_rank"),
    **_each(_HEAD, "hidden_size_per_layer_input", "laurel_rank", "adapter_rank", "router_hidden_size", "loop_gate_rank",
        "hc_lowrank", "gated_norm_rank"),
    **_each(4, "index_topk", "time_step_rank", "mamba_dt_rank"),
    **_each(2 * _HIDDEN, "mamba_d_ssm"),
    **_each(8, "state_size", "ssm_state_size", "mamba_d_state", "chunk_size", "mamba_chunk_size", "mamba_n_heads",
        "mamba_num_heads", "n_mamba_heads"),
    **_each(2, "n_groups", "mamba_n_groups", "mamba_ngroups"),
    **_each(_HEAD, "linear_head_dim", "linear_key_head_dim", "linear_value_head_dim"),
    **_each(_HEADS, "linear_num_heads", "linear_num_value_heads"),
    **_each(_HEADS // 2, "linear_num_key_heads"),
}  # fmt: skip
