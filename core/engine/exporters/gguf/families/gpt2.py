"""GPT-2: learned positions, and fused queries, keys and values."""

from core.engine.exporters.gguf.family import TANH_GELU, TWO_LAYER_FFN, Config, GgufFamily, GgufForm, Keys
from core.engine.exporters.gguf.refusal import refusal


def _keys(config: Config) -> Keys:
    if config["scale_attn_by_inverse_layer_idx"] or not config["scale_attn_weights"]:
        raise refusal("attention scaled by the layer's number, or not scaled", "the scale of the head size")
    return {}


FAMILY = GgufFamily(
    "GPT2LMHeadModel",
    (GgufForm("gpt2", has_biases=True),),
    modules={
        "ln_1": "attn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "ln_2": "ffn_norm",
        **TWO_LAYER_FFN,
    },
    outer={"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"},
    activations=TANH_GELU,
    keys=_keys,
)
