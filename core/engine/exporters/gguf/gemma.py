"""Shared parts of Gemma 2 and 3 in llama.cpp: the names of their norms, the scale of attention, windows."""

from typing import Final

from core.engine.exporters.gguf.family import Config, Keys
from core.engine.exporters.gguf.refusal import refusal

GEMMA_NORMS: Final = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def check_attention_scale(config: Config, *, layers_of_largest: int) -> None:
    """Require the attention scale that llama.cpp computes, because files have no key for it; raises its refusal.

    The scale follows from the head size. In the largest model, known by its number of layers, it follows from the
    hidden size divided by the number of heads.
    """
    is_largest = config["num_hidden_layers"] == layers_of_largest
    known = config["hidden_size"] // config["num_attention_heads"] if is_largest else config["head_dim"]
    if config["query_pre_attn_scalar"] != known:
        raise refusal(
            f"attention scaled by {config['query_pre_attn_scalar']} (query_pre_attn_scalar)",
            f"{known} there, which llama.cpp takes for it",
        )


def is_sliding(config: Config) -> list[bool]:
    """Return for each layer True if it attends to a sliding window."""
    return [kind == "sliding_attention" for kind in config["layer_types"]]


def window_keys(config: Config, period: int, *, usual: int) -> Keys:
    """Return the keys of windows in all but every `period`th layer; the period is a key only if it is not `usual`."""
    keys: Keys = {"attention.sliding_window": int(config["sliding_window"])}
    return keys if period == usual else keys | {"attention.sliding_window_pattern": period}
