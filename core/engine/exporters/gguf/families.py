"""Families of GGUF, one row each, and the form that can hold a model as a job leaves it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.cuts import Losses
from core.engine.exporters.exporter_info import PARAM
from core.engine.exporters.gguf.family import (
    Config,
    Floats,
    GgufFamily,
    GgufForm,
    Keys,
    Part,
    refusal,
    require,
    window_period,
)
from secateur_wire.errors import InvalidRequest

_LLAMA: Final = GgufForm(
    "llama", has_head_size=True, rotates_neighbours=True, rotates_all=True, scales_rotary=True, has_biases=True
)
_DECI: Final = replace(_LLAMA, name="deci", has_layers=True)
"""Llama with layers that may differ in shape."""
_DEEPSEEK: Final = GgufForm("deepseek2", has_head_size=True, has_yarn=True, has_dense_lead=True)
_GRANITE_MOE: Final = GgufForm("granitemoe", has_head_size=True, rotates_neighbours=True, scales_rotary=True)
_QKV: Final = ("attn_q", "attn_k", "attn_v")
_GATE_AND_UP: Final = {"mlp.gate_up_proj": ("ffn_gate", "ffn_up")}
"""Parts of a gate that is fused with the channels."""
_TANH_GELU: Final = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
"""Names of the GELU approximation by tanh, which llama.cpp uses."""
_SOFTMAX, _SIGMOID = 1, 2
"""llama.cpp's numbers of what makes scores of a router's outputs."""


def _as_it_is(heads: int, keys: Keys, parameter: Floats) -> Floats:
    return parameter


_GATE_UP_EXPERTS: Final[dict[str, Part]] = {
    "ffn_gate_exps.weight": lambda heads, keys, stack: stack[:, : stack.shape[1] // 2],
    "ffn_up_exps.weight": lambda heads, keys, stack: stack[:, stack.shape[1] // 2 :],
}
"""Parts of a stack [experts, rows, columns] whose rows are the gates and then the channels of each expert."""
_DOWN_EXPERTS: Final[dict[str, Part]] = {"ffn_down_exps.weight": _as_it_is}
_EXPERTS: Final = {"mlp.experts.gate_up_proj": _GATE_UP_EXPERTS, "mlp.experts.down_proj": _DOWN_EXPERTS}
_GRANITE_EXPERTS: Final[dict[str, dict[str, Part]]] = {
    "block_sparse_moe.experts.gate_up_proj": _GATE_UP_EXPERTS,
    "block_sparse_moe.experts.down_proj": _DOWN_EXPERTS,
    "block_sparse_moe.router.weight": {"ffn_gate_inp.weight": _as_it_is},
}
_ROUTER_BIAS: Final[dict[str, dict[str, Part]]] = {"mlp.gate.e_score_correction_bias": {"exp_probs_b.bias": _as_it_is}}
_GPT_OSS_PARAMETERS: Final[dict[str, dict[str, Part]]] = {
    "mlp.experts.gate_up_proj": {
        "ffn_gate_exps.weight": lambda heads, keys, stack: stack[..., ::2].swapaxes(1, 2),
        "ffn_up_exps.weight": lambda heads, keys, stack: stack[..., 1::2].swapaxes(1, 2),
    },
    "mlp.experts.gate_up_proj_bias": {
        "ffn_gate_exps.bias": lambda heads, keys, biases: biases[:, ::2],
        "ffn_up_exps.bias": lambda heads, keys, biases: biases[:, 1::2],
    },
    "mlp.experts.down_proj": {"ffn_down_exps.weight": lambda heads, keys, stack: stack.swapaxes(1, 2)},
    "mlp.experts.down_proj_bias": {"ffn_down_exps.bias": _as_it_is},
    "self_attn.sinks": {"attn_sinks.weight": _as_it_is},
}
_LATENT: Final[dict[str, dict[str, Part]]] = {
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


def _by_part(weight: Floats, heads: int) -> Floats:
    """Return the rows of all queries, then all keys, then all values, of rows fused head by head."""
    return weight.reshape(heads, 3, -1, *weight.shape[1:]).swapaxes(0, 1).reshape(weight.shape)


def _parallel(config: Config) -> Keys:
    return {"use_parallel_residual": bool(config["use_parallel_residual"])}


def _granite(config: Config) -> Keys:
    return {
        "attention.scale": float(config["attention_multiplier"]),
        "embedding_scale": float(config["embedding_multiplier"]),
        "residual_scale": float(config["residual_multiplier"]),
        "logit_scale": float(config["logits_scaling"]),
    }


def _granite_shared(config: Config) -> Keys:
    return _granite(config) | {"expert_shared_feed_forward_length": int(config["shared_intermediate_size"])}


def _qwen2_moe(config: Config) -> Keys:
    return {"expert_shared_feed_forward_length": int(config["shared_expert_intermediate_size"])}


def _smollm3(config: Config) -> Keys:
    """Return no keys: llama.cpp knows by a layer's number that every fourth has no rotary embeddings."""
    require(config, "no_rope_layers", [int((layer + 1) % 4 != 0) for layer in range(len(config["no_rope_layers"]))])
    return {}


def _gemma2(config: Config) -> Keys:
    """Return the keys of soft caps, and of sliding windows in every other layer.

    Where removed layers break the alternation, the file's context length is the window: within it all layers attend to
    the same tokens.
    """
    _check_attention_scale(config, layers_of_largest=46)
    caps = ("attn_logit_softcapping", "final_logit_softcapping")
    if any(config[each] is None for each in caps):
        raise refusal("no soft caps (limits) on attention or logits", "both")
    period = window_period(_is_sliding(config), 2)
    context = min(config["sliding_window"], config["max_position_embeddings"])
    return {
        **{each: float(config[each]) for each in caps},
        **_window_keys(config, period or 1, usual=2),
        **({} if period else {"context_length": context}),
    }


def _gemma3(config: Config) -> Keys:
    """Return the keys of sliding windows in five of six layers, with their own base of rotary embeddings."""
    _check_attention_scale(config, layers_of_largest=62)
    sliding = _is_sliding(config)
    period = window_period(sliding, 6)
    if period is None:
        full = ", ".join(str(layer) for layer, slides in enumerate(sliding) if not slides)
        raise refusal(
            f"full attention in layers {full} of {len(sliding)}, and windows in the others",
            "full attention in every 6th layer, or every other number, as llama.cpp has it by their numbers",
        )
    rotary = config["rope_parameters"]["sliding_attention"]
    if rotary.get("rope_type", "default") != "default":
        raise refusal("attention windows with scaled rotary embeddings", "none that are")
    cap = config["final_logit_softcapping"]
    return {
        "rope.freq_base_swa": float(rotary["rope_theta"]),
        **({} if cap is None else {"final_logit_softcapping": float(cap)}),
        **_window_keys(config, period, usual=6),
    }


def _gpt_oss(config: Config) -> Keys:
    if window_period(_is_sliding(config), 2) != 2:
        raise refusal("other windows than in every other layer from the first on", "those alone")
    return {"attention.sliding_window": int(config["sliding_window"])}


def _check_attention_scale(config: Config, *, layers_of_largest: int) -> None:
    """Require the attention scale that llama.cpp computes, because files have no key for it; raises its refusal.

    The scale follows from the head size. In the largest model, known by its number of layers, it follows from the
    hidden size divided by the number of heads.
    """
    is_largest = config["num_hidden_layers"] == layers_of_largest
    known = config["hidden_size"] // config["num_attention_heads"] if is_largest else config["head_dim"]
    require(config, "query_pre_attn_scalar", known)


def _is_sliding(config: Config) -> list[bool]:
    """Return for each layer True if it attends to a sliding window."""
    return [kind == "sliding_attention" for kind in config["layer_types"]]


def _window_keys(config: Config, period: int, *, usual: int) -> Keys:
    """Return the keys of windows in all but every `period`th layer; the period is a key only if it is not `usual`."""
    keys: Keys = {"attention.sliding_window": int(config["sliding_window"])}
    return keys if period == usual else keys | {"attention.sliding_window_pattern": period}


def _router(config: Config, *, has_sigmoid: bool) -> Keys:
    """Return the keys of a router beside shared experts, where the first layers may have an FFN instead."""
    keys: Keys = {
        "feed_forward_length": int(config["intermediate_size"]),
        "expert_shared_count": int(config["n_shared_experts"]),
        "expert_gating_func": _SIGMOID if has_sigmoid else _SOFTMAX,
        "expert_weights_scale": float(config["routed_scaling_factor"]),
        "expert_weights_norm": has_sigmoid and bool(config["norm_topk_prob"]),
    }
    groups = int(config["n_group"] or 1)
    if groups == 1:
        return keys
    return keys | {"expert_group_count": groups, "expert_group_used_count": int(config["topk_group"])}


def _glm4_moe(config: Config) -> Keys:
    return _router(config, has_sigmoid=True)


def _deepseek2(config: Config) -> Keys:
    """Return V2's keys; llama.cpp chooses groups of experts by the two best of each, which V2 has not."""
    return _latent_keys(config) | _router({**config, "n_group": 1}, has_sigmoid=False)


def _deepseek3(config: Config) -> Keys:
    return _latent_keys(config) | _router(config, has_sigmoid=True)


def _latent_keys(config: Config) -> Keys:
    """Return the keys of latent attention, which llama.cpp computes as one key and value for all heads."""
    latent, turned = int(config["kv_lora_rank"]), int(config["qk_rope_head_dim"])
    keys: Keys = {
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": int(config["q_lora_rank"] or 0),
        "attention.kv_lora_rank": latent,
        "attention.key_length": latent + turned,
        "attention.value_length": latent,
        "attention.key_length_mla": int(config["qk_nope_head_dim"]) + turned,
        "attention.value_length_mla": int(config["v_head_dim"]),
        "rope.dimension_count": turned,
    }
    rotary = config["rope_parameters"]
    scale = rotary.get("mscale_all_dim") if rotary.get("rope_type") == "yarn" else None
    if not scale:
        return keys
    require(rotary, "mscale", scale)
    return keys | {"rope.scaling.yarn_log_multiplier": 0.1 * float(scale)}


FAMILIES: Final[Mapping[str, GgufFamily]] = {
    "LlamaForCausalLM": GgufFamily((_LLAMA, _DECI)),
    "MistralForCausalLM": GgufFamily((_LLAMA, _DECI)),
    "Qwen2ForCausalLM": GgufFamily((GgufForm("qwen2"), _LLAMA, _DECI)),
    "Qwen3ForCausalLM": GgufFamily(
        (
            GgufForm("qwen3", has_head_size=True),
            # OpenELM has all of Qwen3's parts in layers of any shape.
            GgufForm(
                "openelm", has_head_size=True, has_layers=True, is_tied=True,
                joined={"attn_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")},
            ),
        )
    ),
    "Gemma2ForCausalLM": GgufFamily(
        (GgufForm("gemma2", has_head_size=True, is_tied=True),),
        activations=_TANH_GELU, norm_offset=1.0, own_keys=_gemma2, slides=True,
    ),
    "Gemma3ForCausalLM": GgufFamily(
        (GgufForm("gemma3", has_head_size=True),), requires={"attn_logit_softcapping": None},
        activations=_TANH_GELU, norm_offset=1.0, own_keys=_gemma3, slides=True, layers_are_numbered=True,
    ),
    "Olmo2ForCausalLM": GgufFamily((GgufForm("olmo2", is_tied=False),)),
    "Phi3ForCausalLM": GgufFamily(
        (
            GgufForm("phi3"),
            *(replace(each, parts={"self_attn.qkv_proj": _QKV, **_GATE_AND_UP}) for each in (_LLAMA, _DECI)),
        )
    ),
    "GPT2LMHeadModel": GgufFamily(
        (GgufForm("gpt2", has_biases=True),), activations=_TANH_GELU,
        requires={"scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True},
    ),
    "GPTNeoXForCausalLM": GgufFamily(
        (GgufForm("gptneox", has_biases=True),), activations=(*_TANH_GELU, "gelu"), requires={"attention_bias": True},
        own_keys=_parallel, reorder={"attn_qkv": _by_part},
    ),
    "Starcoder2ForCausalLM": GgufFamily(
        (GgufForm("starcoder2", has_biases=True),), activations=_TANH_GELU, requires={"use_bias": True}
    ),
    "GraniteForCausalLM": GgufFamily((replace(_GRANITE_MOE, name="granite", has_biases=True),), own_keys=_granite),
    "GlmForCausalLM": GgufFamily(  # it turns neighbours itself
        (
            GgufForm("chatglm"),
            *(replace(each, rotates_neighbours=False, parts=_GATE_AND_UP) for each in (_LLAMA, _DECI)),
        )
    ),
    "StableLmForCausalLM": GgufFamily(
        (GgufForm("stablelm", is_tied=False),), requires={"qk_layernorm": False}, own_keys=_parallel
    ),
    "SmolLM3ForCausalLM": GgufFamily(
        (GgufForm("smollm3", has_head_size=True, rotates_neighbours=True),),
        own_keys=_smollm3, layers_are_numbered=True,
    ),
    "DeepseekV2ForCausalLM": GgufFamily(
        (_DEEPSEEK,), requires={"topk_method": "greedy", "mlp_bias": False, "attention_bias": False},
        own_keys=_deepseek2, parameters=_EXPERTS | _LATENT, layers_are_numbered=True,
    ),
    "DeepseekV3ForCausalLM": GgufFamily(
        (_DEEPSEEK,), requires={"rope_interleave": True, "attention_bias": False},
        own_keys=_deepseek3, parameters=_EXPERTS | _LATENT | _ROUTER_BIAS, layers_are_numbered=True,
    ),
    "Glm4MoeForCausalLM": GgufFamily(
        (GgufForm("glm4moe", has_head_size=True, has_dense_lead=True),),
        own_keys=_glm4_moe, parameters=_EXPERTS | _ROUTER_BIAS, layers_are_numbered=True,
    ),
    "GptOssForCausalLM": GgufFamily(
        (GgufForm("gpt-oss", has_head_size=True, has_yarn=True, has_biases=True, is_tied=False),),
        requires={"swiglu_alpha": 1.702, "swiglu_limit": 7.0, "attention_bias": True},
        own_keys=_gpt_oss, parameters=_GPT_OSS_PARAMETERS, slides=True, layers_are_numbered=True,
    ),
    "GraniteMoeForCausalLM": GgufFamily((_GRANITE_MOE,), own_keys=_granite, parameters=_GRANITE_EXPERTS),
    "GraniteMoeSharedForCausalLM": GgufFamily(
        (replace(_GRANITE_MOE, parts={"shared_mlp.input_linear": ("ffn_gate_shexp", "ffn_up_shexp")}),),
        own_keys=_granite_shared, parameters=_GRANITE_EXPERTS,
    ),
    "MixtralForCausalLM": GgufFamily((_LLAMA,), parameters=_EXPERTS),
    "OlmoeForCausalLM": GgufFamily(
        (GgufForm("olmoe"),), requires={"norm_topk_prob": False, "clip_qkv": None}, parameters=_EXPERTS
    ),
    "Qwen2MoeForCausalLM": GgufFamily(
        (GgufForm("qwen2moe"),), requires={"norm_topk_prob": False}, own_keys=_qwen2_moe, parameters=_EXPERTS
    ),
    "Qwen3MoeForCausalLM": GgufFamily(
        (GgufForm("qwen3moe", has_head_size=True),), requires={"norm_topk_prob": True}, parameters=_EXPERTS
    ),
}  # fmt: skip
"""Families by architecture: declared architectures in their order, then mixtures, which are discovered."""


def written_form(
    description: ModelDescription, losses: Losses | None = None, param: str = PARAM
) -> tuple[GgufFamily, GgufForm]:
    """Return the family of a model, and the form that can hold it without the lost parts; raises InvalidRequest."""
    name, losses = description.architecture, losses or Losses()
    family = FAMILIES.get(name)
    if family is None or family.is_mixture != (description.discovered is not None):
        shown = name if description.discovered is None else f"the type {description.discovered.model_type!r}"
        raise InvalidRequest(
            f"{param}: GGUF files can be written for {', '.join(FAMILIES)}, but not for {shown}: leave it out, or "
            "choose one of those models",
            param=param,
        )
    structure = require_structure(description)
    width = structure.layers[0].sizes["heads"] * structure.facts["head_dim"]
    has_different_layers = losses.different_layers or not structure.is_uniform
    form = family.form_of(
        has_own_head_size=losses.heads or width != description.hidden_size, has_different_layers=has_different_layers
    )
    if form is None and has_different_layers:
        why, instead = f"needs one shape for all layers of {name}", "use output.layout 'uniform'"
    elif form is None:
        why = f"computes the size of a head of {name} from the hidden size"
        instead = "keep all heads (parameters.attention 'none')"
    elif form.is_tied is not None and form.is_tied != description.tied_embeddings:
        head = "the embeddings as the head" if form.is_tied else "a head that is not the embeddings"
        why, instead = f"has {name} with {head}", "choose a model that has it so"
        if has_different_layers:
            why, instead = (
                f"allows layers of different shapes, of {name}, only with {head}",
                "use output.layout 'uniform'",
            )
    elif losses.biases and not form.has_biases and any(each.bias for each in description.known_as.sublayers):
        why, instead = f"has {name} without biases", "let none be left behind (parameters.bias false)"
    elif losses.layers and family.layers_are_numbered:
        why, instead = f"decides by the number of a layer of {name} how to compute it", "keep all layers"
    else:
        return family, form
    raise InvalidRequest(f"{param}: llama.cpp {why}: {instead}, or leave gguf out", param=param)
