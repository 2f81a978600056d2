"""Qwen2-MoE: a shared expert with a gate of its own beside the experts."""

from core.engine.exporters.gguf.family import Config, GgufFamily, GgufForm, Keys
from core.engine.exporters.gguf.mixtures import MODULES, STACKS, require_gates


def _keys(config: Config) -> Keys:
    require_gates(config, normalised=False)
    return {"expert_shared_feed_forward_length": int(config["shared_expert_intermediate_size"])}


FAMILY = GgufFamily(
    "Qwen2MoeForCausalLM",
    (GgufForm("qwen2moe"),),
    modules={
        **MODULES,
        "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
        "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
        "mlp.shared_expert.up_proj": "ffn_up_shexp",
        "mlp.shared_expert.down_proj": "ffn_down_shexp",
    },
    keys=_keys,
    parameters=STACKS,
)
