"""Granite: factors of embeddings, attention, residual stream and logits."""

from core.engine.exporters.gguf.family import Config, GgufFamily, GgufForm, Keys


def _keys(config: Config) -> Keys:
    return {
        "attention.scale": float(config["attention_multiplier"]),
        "embedding_scale": float(config["embedding_multiplier"]),
        "residual_scale": float(config["residual_multiplier"]),
        "logit_scale": float(config["logits_scaling"]),
    }


FAMILY = GgufFamily(
    "GraniteForCausalLM",
    (GgufForm("granite", has_head_size=True, rotates_neighbours=True, scales_rotary=True, has_biases=True),),
    keys=_keys,
)
