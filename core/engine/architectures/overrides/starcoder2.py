"""StarCoder2: Llama's attention with biases, an FFN of two layers, and LayerNorm before either."""

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.llama_like import HEADS, NORMS
from core.engine.architectures.unit_counts import UnitAxis

ARCHITECTURE = Architecture(
    model_type="starcoder2",
    architecture="Starcoder2ForCausalLM",
    title="StarCoder2",
    order=120,
    base="model",
    blocks="model.layers",
    head="lm_head",
    inputs=(
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.o_proj",),
        ("mlp.c_fc",),
        ("mlp.c_proj",),
    ),
    channels=(UnitAxis("mlp.c_fc", "out", ("channel",)), UnitAxis("mlp.c_proj", "in", ("channel",))),
    heads=HEADS,
    tied_by_default=True,
    stream_norms=NORMS,
    attention_bias="use_bias",
    ffn_bias="use_bias",
)
