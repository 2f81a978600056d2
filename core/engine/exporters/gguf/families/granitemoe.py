"""Granite-MoE: Granite's factors, and experts whose gates are a softmax of the chosen ones."""

from core.engine.exporters.gguf.families.granite import FAMILY as GRANITE
from core.engine.exporters.gguf.family import GgufFamily, GgufForm
from core.engine.exporters.gguf.mixtures import DOWN_EXPERTS, GATE_UP_EXPERTS, MODULES

FAMILY = GgufFamily(
    "GraniteMoeForCausalLM",
    (GgufForm("granitemoe", has_head_size=True, rotates_neighbours=True, scales_rotary=True),),
    modules={**MODULES, "block_sparse_moe.router": "ffn_gate_inp"},
    keys=GRANITE.keys,
    parameters={
        "block_sparse_moe.experts.gate_up_proj": GATE_UP_EXPERTS,
        "block_sparse_moe.experts.down_proj": DOWN_EXPERTS,
    },
)
