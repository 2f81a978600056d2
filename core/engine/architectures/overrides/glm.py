"""GLM: Llama's attention with biases, and one projection for the gate and the channels of the FFN.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.architecture import Architecture, Sublayer
from core.engine.architectures.llama_like import ATTENTION_NORM, FUSED_FFN, HEADS, PROJECTIONS

ARCHITECTURE = Architecture(
    model_type="glm",
    architecture="GlmForCausalLM",
    title="GLM",
    order=140,
    base="model",
    blocks="model.layers",
    head="lm_head",
    sublayers=(
        Sublayer.of(PROJECTIONS, "self_attn.o_proj", {"heads": HEADS}, norm=ATTENTION_NORM),
        FUSED_FFN,
    ),
)
