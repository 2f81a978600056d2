"""Qwen3-MoE: norms of queries and keys, and gates that llama.cpp always normalises."""

from core.engine.exporters.gguf.family import QK_NORMS, Config, GgufFamily, GgufForm, Keys
from core.engine.exporters.gguf.mixtures import MODULES, STACKS, require_gates


def _keys(config: Config) -> Keys:
    require_gates(config, normalised=True)
    return {}


FAMILY = GgufFamily(
    "Qwen3MoeForCausalLM",
    (GgufForm("qwen3moe", has_head_size=True),),
    modules=MODULES | QK_NORMS,
    keys=_keys,
    parameters=STACKS,
)
