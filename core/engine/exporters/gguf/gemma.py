"""Parts that Gemma 2 and 3 have in common in llama.cpp: the names of their norms, the scale of attention, windows."""

from typing import Final

from core.engine.exporters.gguf.family import Config, Keys
from core.engine.exporters.gguf.refusal import refusal

GEMMA_NORMS: Final = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def check_attention_scale(config: Config, *, layers_of_largest: int) -> None:
    """Require llama.cpp's scale of attention, for which files have no key; raises its refusal.

    It is that of the head size, but of the hidden size per head in the largest model, known by its number of layers.
    """
    is_largest = config["num_hidden_layers"] == layers_of_largest
    known = config["hidden_size"] // config["num_attention_heads"] if is_largest else config["head_dim"]
    if config["query_pre_attn_scalar"] != known:
        raise refusal(
            f"attention scaled by {config['query_pre_attn_scalar']} (query_pre_attn_scalar)",
            f"{known} there, which llama.cpp takes for it",
        )


def is_sliding(config: Config) -> list[bool]:
    """Return for each layer whether it attends to a window."""
    return [kind == "sliding_attention" for kind in config["layer_types"]]


def window_keys(config: Config, period: int, *, usual: int) -> Keys:
    """Return the keys of windows in all but every `period`th layer; its own only where it is not the `usual` one."""
    keys: Keys = {"attention.sliding_window": int(config["sliding_window"])}
    return keys if period == usual else keys | {"attention.sliding_window_pattern": period}
