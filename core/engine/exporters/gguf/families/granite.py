"""Granite: factors of embeddings, attention, residual stream and logits."""

from typing import TYPE_CHECKING

from core.engine.exporters.gguf.family import Form, GgufFamily, Keys

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def _keys(config: "PretrainedConfig") -> Keys:
    return {
        "attention.scale": float(config.attention_multiplier),
        "embedding_scale": float(config.embedding_multiplier),
        "residual_scale": float(config.residual_multiplier),
        "logit_scale": float(config.logits_scaling),
    }


FAMILY = GgufFamily(
    "GraniteForCausalLM",
    (Form("granite", has_head_size=True, rotates_neighbours=True, scales_rotary=True, has_biases=True),),
    keys=_keys,
)
