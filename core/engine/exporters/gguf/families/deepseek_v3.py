"""DeepSeek-V3: V2's attention, and a sigmoid router with a bias, which chooses among the best groups of experts."""

from core.engine.exporters.gguf.families.deepseek_v2 import DEEPSEEK_2, LATENT, LATENT_MODULES, latent_keys
from core.engine.exporters.gguf.family import Config, GgufFamily, Keys
from core.engine.exporters.gguf.mixtures import ROUTER_BIAS, STACKS, router_keys
from core.engine.exporters.gguf.refusal import refusal


def _keys(config: Config) -> Keys:
    if not config["rope_interleave"]:
        raise refusal("rotary embeddings that turn halves (rope_interleave false)", "those that turn neighbours")
    return latent_keys(config) | router_keys(config, has_sigmoid=True)


FAMILY = GgufFamily(
    "DeepseekV3ForCausalLM",
    (DEEPSEEK_2,),
    modules=LATENT_MODULES,
    keys=_keys,
    parameters=STACKS | LATENT | ROUTER_BIAS,
    layers_are_numbered=True,
)
