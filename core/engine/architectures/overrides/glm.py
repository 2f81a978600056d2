"""GLM: Llama's attention with biases, and one projection for the gate and the channels of the FFN."""

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.llama_like import HEADS, NORMS
from core.engine.architectures.unit_counts import UnitAxis

ARCHITECTURE = Architecture(
    model_type="glm",
    architecture="GlmForCausalLM",
    title="GLM",
    order=140,
    base="model",
    blocks="model.layers",
    head="lm_head",
    inputs=(
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.o_proj",),
        ("mlp.gate_up_proj",),
        ("mlp.down_proj",),
    ),
    channels=(
        UnitAxis("mlp.gate_up_proj", "out", ("channel", "channel")),
        UnitAxis("mlp.down_proj", "in", ("channel",)),
    ),
    heads=HEADS,
    stream_norms=NORMS,
)
