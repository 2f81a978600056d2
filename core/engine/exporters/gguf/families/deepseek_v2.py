"""DeepSeek-V2: keys and values from one latent vector, and shared experts. V3 is the same in llama.cpp."""

from typing import Final

from core.engine.exporters.gguf.family import LLAMA_MODULES, Config, Floats, GgufFamily, GgufForm, Keys, Part
from core.engine.exporters.gguf.mixtures import MODULES, SHARED_EXPERTS, STACKS, router_keys
from core.engine.exporters.gguf.refusal import refusal

LATENT: Final[dict[str, dict[str, Part]]] = {
    "self_attn.kv_b_proj.weight": {
        "attn_k_b.weight": lambda heads, keys, weight: _by_head(heads, weight)[:, : _unturned(keys)].swapaxes(1, 2),
        "attn_v_b.weight": lambda heads, keys, weight: _by_head(heads, weight)[:, _unturned(keys) :],
    }
}
"""Matrices of each head that make keys and values of the latent vector; that of keys is applied to queries instead."""


def _by_head(heads: int, weight: Floats) -> Floats:
    return weight.reshape(heads, -1, weight.shape[1])


def _unturned(keys: Keys) -> int:
    """Return the number of a key's features without rotary embeddings."""
    size, turned = keys["attention.key_length_mla"], keys["rope.dimension_count"]
    assert isinstance(size, int) and isinstance(turned, int)
    return size - turned


def latent_keys(config: Config) -> Keys:
    """Return the keys of latent attention, which llama.cpp computes as one key and value for all heads."""
    if config["attention_bias"]:
        raise refusal("biases of attention", "none there")
    latent, turned = int(config["kv_lora_rank"]), int(config["qk_rope_head_dim"])
    return {
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": int(config["q_lora_rank"] or 0),
        "attention.kv_lora_rank": latent,
        "attention.key_length": latent + turned,
        "attention.value_length": latent,
        "attention.key_length_mla": int(config["qk_nope_head_dim"]) + turned,
        "attention.value_length_mla": int(config["v_head_dim"]),
        "rope.dimension_count": turned,
        **_yarn_scale(config["rope_parameters"]),
    }


def _yarn_scale(rotary: Config) -> Keys:
    """Return the key of the factor by which attention is scaled with YaRN."""
    scale = rotary.get("mscale_all_dim") if rotary.get("rope_type") == "yarn" else None
    if not scale:
        return {}
    if rotary.get("mscale") != scale:
        raise refusal(f"YaRN of mscale {rotary.get('mscale')} and mscale_all_dim {scale}", "both alike")
    return {"rope.scaling.yarn_log_multiplier": 0.1 * float(scale)}


def _keys(config: Config) -> Keys:
    if config["topk_method"] != "greedy":
        raise refusal(
            f"experts chosen by {config['topk_method']!r} (topk_method)",
            "'greedy', as llama.cpp chooses groups of experts by the two best of each",
        )
    if config["mlp_bias"]:
        raise refusal("biases of the FFN", "none there")
    return latent_keys(config) | router_keys({**config, "n_group": 1}, has_sigmoid=False)


DEEPSEEK_2: Final = GgufForm("deepseek2", has_head_size=True, has_yarn=True, has_dense_lead=True)
LATENT_MODULES: Final = {
    **LLAMA_MODULES,
    **MODULES,
    **SHARED_EXPERTS,
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
}

FAMILY = GgufFamily(
    "DeepseekV2ForCausalLM",
    (DEEPSEEK_2,),
    modules=LATENT_MODULES,
    keys=_keys,
    parameters=STACKS | LATENT,
    layers_are_numbered=True,
)
