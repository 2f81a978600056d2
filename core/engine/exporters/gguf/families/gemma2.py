"""Gemma 2: soft caps, and sliding windows in every other layer.

Where removed layers break the alternation, the file's context length is the window: within it all layers attend to the
same tokens.
"""

from typing import Final

from core.engine.exporters.gguf.family import (
    LLAMA_MODULES,
    TANH_GELU,
    Config,
    GgufFamily,
    GgufForm,
    Keys,
    window_period,
)
from core.engine.exporters.gguf.gemma import GEMMA_NORMS, check_attention_scale, is_sliding, window_keys
from core.engine.exporters.gguf.refusal import refusal

_PERIOD: Final = 2


def _keys(config: Config) -> Keys:
    check_attention_scale(config, layers_of_largest=46)
    if config["attn_logit_softcapping"] is None or config["final_logit_softcapping"] is None:
        raise refusal("no soft caps (limits) on attention or logits", "both")
    period = window_period(is_sliding(config), _PERIOD)
    context = min(config["sliding_window"], config["max_position_embeddings"])
    return {
        "attn_logit_softcapping": float(config["attn_logit_softcapping"]),
        "final_logit_softcapping": float(config["final_logit_softcapping"]),
        **window_keys(config, period or 1, usual=_PERIOD),
        **({} if period else {"context_length": context}),
    }


FAMILY = GgufFamily(
    "Gemma2ForCausalLM",
    (GgufForm("gemma2", has_head_size=True, is_tied=True),),
    modules=LLAMA_MODULES | GEMMA_NORMS,
    activations=TANH_GELU,
    norm_offset=1.0,
    keys=_keys,
    slides=True,
)
