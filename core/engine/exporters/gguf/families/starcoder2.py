"""StarCoder2: an FFN of two layers, and biases everywhere."""

from core.engine.exporters.gguf.family import (
    LLAMA_MODULES,
    TANH_GELU,
    TWO_LAYER_FFN,
    Config,
    GgufFamily,
    GgufForm,
    Keys,
)
from core.engine.exporters.gguf.refusal import refusal


def _keys(config: Config) -> Keys:
    if not config["use_bias"]:
        raise refusal("no biases", "them")
    return {}


FAMILY = GgufFamily(
    "Starcoder2ForCausalLM",
    (GgufForm("starcoder2", has_biases=True),),
    modules=LLAMA_MODULES | TWO_LAYER_FFN,
    activations=TANH_GELU,
    keys=_keys,
)
