"""GPT-NeoX: queries, keys and values fused head by head, and attention parallel to the FFN."""

from core.engine.exporters.gguf.family import TANH_GELU, Config, Floats, GgufFamily, GgufForm, Keys
from core.engine.exporters.gguf.refusal import refusal


def _keys(config: Config) -> Keys:
    if not config["attention_bias"]:
        raise refusal("no biases of attention", "them")
    return {"use_parallel_residual": bool(config["use_parallel_residual"])}


def _by_part(weight: Floats, heads: int) -> Floats:
    """Return the rows of all queries, then all keys, then all values."""
    return weight.reshape(heads, 3, -1, *weight.shape[1:]).swapaxes(0, 1).reshape(weight.shape)


FAMILY = GgufFamily(
    "GPTNeoXForCausalLM",
    (GgufForm("gptneox", has_biases=True),),
    modules={
        "input_layernorm": "attn_norm",
        "attention.query_key_value": "attn_qkv",
        "attention.dense": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.dense_h_to_4h": "ffn_up",
        "mlp.dense_4h_to_h": "ffn_down",
    },
    outer={"embed_in": "token_embd", "final_layer_norm": "output_norm"},
    activations=(*TANH_GELU, "gelu"),
    keys=_keys,
    reorder={"attn_qkv": _by_part},
)
