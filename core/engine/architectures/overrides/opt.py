"""OPT: a head size that follows from the hidden size, and norms before or after each output, as the config says."""

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.unit_counts import UnitAxis

ARCHITECTURE = Architecture(
    model_type="opt",
    architecture="OPTForCausalLM",
    title="OPT",
    order=100,
    base="model",
    blocks="model.decoder.layers",
    head="lm_head",
    inputs=(
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.out_proj",),
        ("fc1",),
        ("fc2",),
    ),
    channels=(UnitAxis("fc1", "out", ("channel",)), UnitAxis("fc2", "in", ("channel",))),
    width_key="ffn_dim",
    tied_by_default=True,
    attention_bias="enable_bias",
    ffn_bias="enable_bias",
)
