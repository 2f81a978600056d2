"""Config settings of a GGUF file that transformers' loader ignores, so that they would keep the class's defaults."""

from typing import Final

from transformers import LlamaConfig, PretrainedConfig, Qwen2Config

from core.engine.models.gguf_header import GgufHeader

_LEFT_OUT: Final[dict[str, dict[str, str]]] = {
    "gpt2": {"context_length": "n_positions", "feed_forward_length": "n_inner"},
    "qwen3": {"attention.key_length": "head_dim"},
    "gemma2": {"attention.key_length": "query_pre_attn_scalar"},
    "gemma3": {"attention.key_length": "query_pre_attn_scalar"},
}
"""Config's name for each key of whole numbers, by architecture."""
_CAPS: Final = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_SCALED_BY_WIDTH: Final = {"gemma2": 46, "gemma3": 62}
"""Number of layers of the largest models, which scale attention by hidden size per head; files do not say so."""


def complete_config(config: PretrainedConfig, header: GgufHeader) -> PretrainedConfig:
    """Set the values that the loader's config lacks; return that config, or one of a class that has the file's biases.

    Biases would otherwise be dropped silently.
    """
    architecture = header.architecture
    for key, name in _LEFT_OUT.get(architecture, {}).items():
        value = header.get(f"{architecture}.{key}", int)
        if value is not None:
            setattr(config, name, value)
    for key, name in _CAPS.items():
        cap = header.get(f"{architecture}.{key}", float)
        if cap is not None:
            setattr(config, name, cap)
    if config.num_hidden_layers == _SCALED_BY_WIDTH.get(architecture):
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads
    _complete_rotary(config, header)
    period = header.get(f"{architecture}.attention.sliding_window_pattern", int)
    if period:
        config.layer_types = [
            "full_attention" if (layer + 1) % period == 0 else "sliding_attention"
            for layer in range(config.num_hidden_layers)
        ]
    if config.pad_token_id is not None and not 0 <= config.pad_token_id < config.vocab_size:
        config.pad_token_id = None
    return _with_biases(config, header) if architecture == "llama" else config


def _complete_rotary(config: PretrainedConfig, header: GgufHeader) -> None:
    """Set the bases of rotary embeddings, and the share of a head they turn."""
    rotary = getattr(config, "rope_parameters", None)
    if rotary is None:
        return
    name = header.architecture
    base, base_of_windows = (header.get(f"{name}.rope.{key}", float) for key in ("freq_base", "freq_base_swa"))
    by_kind = {"full_attention": base, "sliding_attention": base_of_windows}
    for kind, value in by_kind.items() if by_kind.keys() & rotary.keys() else [(None, base)]:
        if value is not None:
            (rotary if kind is None else rotary[kind])["rope_theta"] = value
    turned = header.get(f"{name}.rope.dimension_count", int)
    if turned is not None and "partial_rotary_factor" in rotary:
        head_size = header.get(f"{name}.attention.key_length", int) or config.hidden_size // config.num_attention_heads
        rotary["partial_rotary_factor"] = turned / head_size


def _with_biases(config: PretrainedConfig, header: GgufHeader) -> PretrainedConfig:
    """Return the config of the class with exactly the file's biases: Qwen2 has those of the attention's inputs.

    llama.cpp's Llama computes these too, and so a Qwen2 without some heads is written as Llama.
    """
    names = {tensor.name for tensor in header.tensors}
    config.attention_bias, config.mlp_bias = "blk.0.attn_q.bias" in names, "blk.0.ffn_gate.bias" in names
    if not config.attention_bias or "blk.0.attn_output.bias" in names:
        return config
    common = LlamaConfig().to_dict().keys() - {"model_type", "attention_bias", "mlp_bias"}
    return Qwen2Config(**{name: value for name, value in config.to_dict().items() if name in common})
