"""Granite-MoE with a shared expert, whose gate is fused with its channels."""

from dataclasses import replace

from core.engine.exporters.gguf.families.granitemoe import FAMILY as GRANITE_MOE
from core.engine.exporters.gguf.family import Config, Keys


def _keys(config: Config) -> Keys:
    return GRANITE_MOE.keys(config) | {"expert_shared_feed_forward_length": int(config["shared_intermediate_size"])}


_FUSED = {"shared_mlp.input_linear": ("ffn_gate_shexp", "ffn_up_shexp")}

FAMILY = replace(
    GRANITE_MOE,
    architecture="GraniteMoeSharedForCausalLM",
    forms=tuple(replace(each, parts=_FUSED) for each in GRANITE_MOE.forms),
    modules={
        **GRANITE_MOE.modules,
        "shared_mlp.input_linear": "ffn_up_shexp",
        "shared_mlp.output_linear": "ffn_down_shexp",
    },
    keys=_keys,
)
