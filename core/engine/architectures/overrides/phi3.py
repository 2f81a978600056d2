"""Phi-3: one projection for queries, keys and values, and one for the gate and the channels of the FFN."""

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.llama_like import NORMS
from core.engine.architectures.unit_counts import UnitAxis

ARCHITECTURE = Architecture(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    title="Phi-3",
    order=80,
    base="model",
    blocks="model.layers",
    head="lm_head",
    inputs=(("self_attn.qkv_proj",), ("self_attn.o_proj",), ("mlp.gate_up_proj",), ("mlp.down_proj",)),
    channels=(
        UnitAxis("mlp.gate_up_proj", "out", ("channel", "channel")),
        UnitAxis("mlp.down_proj", "in", ("channel",)),
    ),
    heads=(
        UnitAxis("self_attn.qkv_proj", "out", ("query", "key", "key")),
        UnitAxis("self_attn.o_proj", "in", ("query",)),
    ),
    stream_norms=NORMS,
)
