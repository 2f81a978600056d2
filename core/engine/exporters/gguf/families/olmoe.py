"""OLMoE: norms of queries and keys that span all heads, and gates that are not normalised."""

from core.engine.exporters.gguf.family import QK_NORMS, Config, GgufFamily, GgufForm, Keys
from core.engine.exporters.gguf.mixtures import MODULES, STACKS, require_gates
from core.engine.exporters.gguf.refusal import refusal


def _keys(config: Config) -> Keys:
    require_gates(config, normalised=False)
    if config["clip_qkv"] is not None:
        raise refusal("limits of queries, keys and values (clip_qkv)", "none")
    return {}


FAMILY = GgufFamily(
    "OlmoeForCausalLM",
    (GgufForm("olmoe"),),
    modules=MODULES | QK_NORMS,
    keys=_keys,
    parameters=STACKS,
)
