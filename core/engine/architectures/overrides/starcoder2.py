"""StarCoder2: Llama's attention with biases, an FFN of two layers, and LayerNorm before each sublayer.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.architecture import Architecture, Sublayer
from core.engine.architectures.llama_like import ATTENTION_NORM, FFN_NORM, HEADS, PROJECTIONS
from core.engine.architectures.unit_axis import UnitAxis

ARCHITECTURE = Architecture(
    model_type="starcoder2",
    architecture="Starcoder2ForCausalLM",
    title="StarCoder2",
    order=120,
    base="model",
    blocks="model.layers",
    head="lm_head",
    sublayers=(
        Sublayer.of(PROJECTIONS, "self_attn.o_proj", {"heads": HEADS}, norm=ATTENTION_NORM, bias="use_bias"),
        Sublayer.of(
            ("mlp.c_fc",),
            "mlp.c_proj",
            {"channels": (UnitAxis("mlp.c_fc", "out", ("channel",)), UnitAxis("mlp.c_proj", "in", ("channel",)))},
            norm=FFN_NORM,
            bias="use_bias",
        ),
    ),
    tied_by_default=True,
)
