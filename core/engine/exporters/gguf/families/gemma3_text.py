"""Gemma 3: sliding windows in five of six layers, with their own base of rotary embeddings."""

from typing import Final

from core.engine.exporters.gguf.family import (
    LLAMA_MODULES,
    QK_NORMS,
    TANH_GELU,
    Config,
    GgufFamily,
    GgufForm,
    Keys,
    window_period,
)
from core.engine.exporters.gguf.gemma import GEMMA_NORMS, check_attention_scale, is_sliding, window_keys
from core.engine.exporters.gguf.refusal import refusal

_PERIOD: Final = 6


def _keys(config: Config) -> Keys:
    check_attention_scale(config, layers_of_largest=62)
    if config["attn_logit_softcapping"] is not None:
        raise refusal("a soft cap (limit) on attention", "none")
    sliding = is_sliding(config)
    period = window_period(sliding, _PERIOD)
    if period is None:
        full = ", ".join(str(layer) for layer, slides in enumerate(sliding) if not slides)
        raise refusal(
            f"full attention in layers {full} of {len(sliding)}, and windows in the others",
            f"full attention in every {_PERIOD}th layer, or every other number, as llama.cpp has it by their numbers",
        )
    rotary = config["rope_parameters"]["sliding_attention"]
    if rotary.get("rope_type", "default") != "default":
        raise refusal("attention windows with scaled rotary embeddings", "none that are")
    cap = config["final_logit_softcapping"]
    return {
        "rope.freq_base_swa": float(rotary["rope_theta"]),
        **({} if cap is None else {"final_logit_softcapping": float(cap)}),
        **window_keys(config, period, usual=_PERIOD),
    }


FAMILY = GgufFamily(
    "Gemma3ForCausalLM",
    (GgufForm("gemma3", has_head_size=True),),
    modules=LLAMA_MODULES | GEMMA_NORMS | QK_NORMS,
    activations=TANH_GELU,
    norm_offset=1.0,
    keys=_keys,
    slides=True,
    layers_are_numbered=True,
)
