"""GLM-4 MoE: a sigmoid router with a bias, shared experts, and first layers without experts."""

from core.engine.exporters.gguf.family import LLAMA_MODULES, QK_NORMS, Config, GgufFamily, GgufForm, Keys
from core.engine.exporters.gguf.mixtures import MODULES, ROUTER_BIAS, SHARED_EXPERTS, STACKS, router_keys


def _keys(config: Config) -> Keys:
    return router_keys(config, has_sigmoid=True)


FAMILY = GgufFamily(
    "Glm4MoeForCausalLM",
    (GgufForm("glm4moe", has_head_size=True, has_dense_lead=True),),
    modules=LLAMA_MODULES | MODULES | QK_NORMS | SHARED_EXPERTS | {"post_attention_layernorm": "post_attention_norm"},
    keys=_keys,
    parameters=STACKS | ROUTER_BIAS,
    layers_are_numbered=True,
)
