"""Phi-3: one projection for queries, keys and values, and one for the gate and the channels of the FFN.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.architecture import Architecture, Sublayer
from core.engine.architectures.llama_like import ATTENTION_NORM, FUSED_FFN
from core.engine.architectures.unit_axis import UnitAxis

ARCHITECTURE = Architecture(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    title="Phi-3",
    order=80,
    base="model",
    blocks="model.layers",
    head="lm_head",
    sublayers=(
        Sublayer.of(
            ("self_attn.qkv_proj",),
            "self_attn.o_proj",
            {
                "heads": (
                    UnitAxis("self_attn.qkv_proj", "out", ("query", "key", "key")),
                    UnitAxis("self_attn.o_proj", "in", ("query",)),
                )
            },
            norm=ATTENTION_NORM,
        ),
        FUSED_FFN,
    ),
)
