"""StarCoder2: an FFN of two layers, and biases everywhere."""

from typing import TYPE_CHECKING

from core.engine.exporters.gguf.family import LLAMA_MODULES, TANH_GELU, TWO_LAYER_FFN, Form, GgufFamily, Keys
from core.engine.exporters.gguf.refusal import refusal

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def _keys(config: "PretrainedConfig") -> Keys:
    if not config.use_bias:
        raise refusal("no biases", "them")
    return {}


FAMILY = GgufFamily(
    "Starcoder2ForCausalLM",
    (Form("starcoder2", has_biases=True),),
    modules=LLAMA_MODULES | TWO_LAYER_FFN,
    activations=TANH_GELU,
    keys=_keys,
)
