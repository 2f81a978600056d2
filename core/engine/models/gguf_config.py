"""Config settings of a GGUF file that transformers' loader leaves to the defaults of the config class."""

from typing import Final

from transformers import PretrainedConfig

from core.engine.models.gguf_header import GgufHeader

_LEFT_OUT: Final[dict[str, dict[str, str]]] = {
    "gpt2": {"context_length": "n_positions", "feed_forward_length": "n_inner"},
    "qwen3": {"attention.key_length": "head_dim"},
    "gemma2": {"attention.key_length": "query_pre_attn_scalar"},
    "gemma3": {"attention.key_length": "query_pre_attn_scalar"},
}
"""The config's name for a key, by architecture."""
_SCALED_BY_WIDTH: Final = {"gemma2": 46, "gemma3": 62}
"""Layers of the largest models, which scale attention by hidden size per head; no key of the file says so."""


def complete_config(config: PretrainedConfig, header: GgufHeader) -> None:
    """Set the values in the loader's config that it has left out; biases would be dropped without a word."""
    architecture = header.architecture
    for key, name in _LEFT_OUT.get(architecture, {}).items():
        value = header.get(f"{architecture}.{key}", int)
        if value is not None:
            setattr(config, name, value)
    if architecture == "llama":
        names = {tensor.name for tensor in header.tensors}
        config.attention_bias, config.mlp_bias = "blk.0.attn_q.bias" in names, "blk.0.ffn_gate.bias" in names
    if config.num_hidden_layers == _SCALED_BY_WIDTH.get(architecture):
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads
    if config.pad_token_id is not None and not 0 <= config.pad_token_id < config.vocab_size:
        config.pad_token_id = None
