"""Declared architectures: a row for each family of language models and of classifiers, in the order of lists.

They are known at once and without a worker. Discovery finds the same of each language model but two: it sees the norms
of one config only, and configs of OPT and StableLM say which norms read the residual stream.
"""

from typing import Final

from core.engine.architectures.architecture import (
    REFERENCE_TYPE,
    Architecture,
    ClassifierArchitecture,
    Sublayer,
    UnitAxis,
)
from secateur_wire.errors import UnsupportedArchitecture

_MODULES: Final = ("model", "model.layers", "lm_head")
_PROJECTIONS: Final = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_HEADS: Final = (
    UnitAxis("self_attn.q_proj", "out", ("query",)),
    UnitAxis("self_attn.k_proj", "out", ("key",)),
    UnitAxis("self_attn.v_proj", "out", ("key",)),
    UnitAxis("self_attn.o_proj", "in", ("query",)),
)
_HEADS_WITH_NORMS: Final = (
    *_HEADS,
    UnitAxis("self_attn.q_norm", "out", ("query",)),
    UnitAxis("self_attn.k_norm", "out", ("key",)),
)
_FUSED_HEADS: Final = (
    UnitAxis("self_attn.qkv_proj", "out", ("query", "key", "key")),
    UnitAxis("self_attn.o_proj", "in", ("query",)),
)
_ATTENTION_NORM: Final = "input_layernorm"
_FFN_NORM: Final = "post_attention_layernorm"


def _attention(
    inputs: tuple[str, ...] = _PROJECTIONS,
    output: str = "self_attn.o_proj",
    heads: tuple[UnitAxis, ...] = _HEADS,
    *,
    norm: str | None = None,
    bias: str | None = None,
) -> Sublayer:
    """Return an attention; its `heads` have no axes where head size is hidden size / heads."""
    return Sublayer.of(inputs, output, {"heads": heads}, norm=norm, bias=bias)


def _ffn(
    inputs: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj"),
    output: str = "mlp.down_proj",
    *,
    side_by_side: int = 1,
    norm: str | None = None,
    bias: str | None = None,
) -> Sublayer:
    """Return an FFN whose input layers have the rows of the channels, so many times side by side."""
    rows = tuple(UnitAxis(name, "out", ("channel",) * side_by_side) for name in inputs)
    axes = (*rows, UnitAxis(output, "in", ("channel",)))
    return Sublayer.of(inputs, output, {"channels": axes}, norm=norm, bias=bias)


_READS_STREAM: Final = (_attention(norm=_ATTENTION_NORM), _ffn(norm=_FFN_NORM))
_FUSED_FFN: Final = _ffn(("mlp.gate_up_proj",), side_by_side=2, norm=_FFN_NORM)
_LANGUAGE_MODELS: Final = (
    Architecture(
        "llama",
        "LlamaForCausalLM",
        "Llama",
        *_MODULES,
        (_attention(norm=_ATTENTION_NORM, bias="attention_bias"), _ffn(norm=_FFN_NORM, bias="mlp_bias")),
        heads_divide_hidden=True,
    ),
    Architecture("mistral", "MistralForCausalLM", "Mistral", *_MODULES, _READS_STREAM),
    Architecture("qwen2", "Qwen2ForCausalLM", "Qwen2", *_MODULES, _READS_STREAM),
    Architecture(  # norms of queries and keys are per head, so that they stay unchanged when heads are removed
        "qwen3",
        "Qwen3ForCausalLM",
        "Qwen3",
        *_MODULES,
        (_attention(norm=_ATTENTION_NORM, bias="attention_bias"), _ffn(norm=_FFN_NORM)),
    ),
    Architecture(  # a norm lies between each output and the residual stream
        "gemma2",
        "Gemma2ForCausalLM",
        "Gemma 2",
        *_MODULES,
        (_attention(bias="attention_bias"), _ffn()),
        heads_divide_hidden=True,
        tied_by_default=True,
    ),
    Architecture(  # as Gemma 2; its language model alone
        "gemma3_text",
        "Gemma3ForCausalLM",
        "Gemma 3",
        *_MODULES,
        (_attention(bias="attention_bias"), _ffn()),
        heads_divide_hidden=True,
        tied_by_default=True,
    ),
    Architecture(  # norms of queries and keys span all heads and shrink with them; a norm follows each output
        "olmo2",
        "Olmo2ForCausalLM",
        "OLMo 2",
        *_MODULES,
        (_attention(heads=_HEADS_WITH_NORMS, bias="attention_bias"), _ffn()),
    ),
    Architecture(
        "phi3",
        "Phi3ForCausalLM",
        "Phi-3",
        *_MODULES,
        (_attention(("self_attn.qkv_proj",), heads=_FUSED_HEADS, norm=_ATTENTION_NORM), _FUSED_FFN),
    ),
    Architecture(
        "gpt2",
        "GPT2LMHeadModel",
        "GPT-2",
        "transformer",
        "transformer.h",
        "lm_head",
        (_attention(("attn.c_attn",), "attn.c_proj", (), norm="ln_1"), _ffn(("mlp.c_fc",), "mlp.c_proj", norm="ln_2")),
        embeddings="wte",
        width_key="n_inner",
        config_keys={
            "num_hidden_layers": "n_layer",
            "hidden_size": "n_embd",
            "max_position_embeddings": "n_positions",
            "num_attention_heads": "n_head",
        },
        tied_by_default=True,
        transposed=True,
    ),
    Architecture(  # the config puts norms before or after each sublayer
        "opt",
        "OPTForCausalLM",
        "OPT",
        "model",
        "model.decoder.layers",
        "lm_head",
        (
            _attention(_PROJECTIONS, "self_attn.out_proj", (), bias="enable_bias"),
            _ffn(("fc1",), "fc2", bias="enable_bias"),
        ),
        embeddings="decoder.embed_tokens",
        width_key="ffn_dim",
        tied_by_default=True,
    ),
    Architecture(  # attention and FFN side by side
        "gpt_neox",
        "GPTNeoXForCausalLM",
        "GPT-NeoX",
        "gpt_neox",
        "gpt_neox.layers",
        "lm_head",
        (
            _attention(("attention.query_key_value",), "attention.dense", (), bias="attention_bias"),
            _ffn(("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h"),
        ),
        embeddings="embed_in",
        stored_head="embed_out",
    ),
    Architecture(
        "starcoder2",
        "Starcoder2ForCausalLM",
        "StarCoder2",
        *_MODULES,
        (
            _attention(norm=_ATTENTION_NORM, bias="use_bias"),
            _ffn(("mlp.c_fc",), "mlp.c_proj", norm=_FFN_NORM, bias="use_bias"),
        ),
        tied_by_default=True,
    ),
    Architecture(  # a factor lies between each output and the residual stream
        "granite",
        "GraniteForCausalLM",
        "Granite",
        *_MODULES,
        (_attention(bias="attention_bias"), _ffn(bias="mlp_bias")),
    ),
    Architecture("glm", "GlmForCausalLM", "GLM", *_MODULES, (_attention(norm=_ATTENTION_NORM), _FUSED_FFN)),
    Architecture(  # attention and FFN in sequence or in parallel
        "stablelm", "StableLmForCausalLM", "StableLM", *_MODULES, (_attention(heads=()), _ffn())
    ),
    Architecture(  # some layers have rotary embeddings
        "smollm3",
        "SmolLM3ForCausalLM",
        "SmolLM3",
        *_MODULES,
        (_attention(norm=_ATTENTION_NORM, bias="attention_bias"), _ffn(norm=_FFN_NORM, bias="mlp_bias")),
        tied_by_default=True,
        lists_by_layer=("layer_types", "no_rope_layers"),
    ),
)
_VIT_NAMES: Final = (
    (r"\.encoder\.layer\.([0-9]+)\.", r".layers.\1."),
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
"""Names of the modules of vision transformers in files, as patterns, each with its replacement in the model."""
_CLASSIFIERS: Final = (
    ClassifierArchitecture("resnet", "ResNetForImageClassification", "ResNet", head="classifier.1"),
    ClassifierArchitecture("mobilenet_v2", "MobileNetV2ForImageClassification", "MobileNetV2"),
    ClassifierArchitecture("regnet", "RegNetForImageClassification", "RegNet", head="classifier.1"),
    ClassifierArchitecture("convnext", "ConvNextForImageClassification", "ConvNeXt"),
    ClassifierArchitecture("vit", "ViTForImageClassification", "ViT", renames=_VIT_NAMES),
    ClassifierArchitecture("deit", "DeiTForImageClassification", "DeiT", renames=_VIT_NAMES),
    ClassifierArchitecture(  # the head's name differs from one model to another
        "timm_wrapper", "TimmWrapperForImageClassification", "timm", head="", prefix="timm_model."
    ),
    ClassifierArchitecture(REFERENCE_TYPE, "ReferenceNetwork", "Reference network", head="network.head"),
)
LANGUAGE_ARCHITECTURES: Final = {each.architecture: each for each in _LANGUAGE_MODELS}
CLASSIFIER_ARCHITECTURES: Final = {each.architecture: each for each in _CLASSIFIERS}


def declared_architecture(class_name: str, model_type: object) -> Architecture | None:
    """Return the architecture declared for a class and a config type.

    None where the class is not declared, or the config's type is not that of any declared architecture.
    """
    architecture = LANGUAGE_ARCHITECTURES.get(class_name)
    is_known = any(each.model_type == model_type for each in LANGUAGE_ARCHITECTURES.values())
    return architecture if is_known else None


def architecture_for(names: list[str], discovered: Architecture | None = None) -> Architecture:
    """Return the architecture of a config's `architectures`: the declared one, else the discovered one.

    Raises UnsupportedArchitecture, naming the declared ones, where there is neither.
    """
    if discovered is not None and discovered.architecture in names:
        return declared_architecture(discovered.architecture, discovered.model_type) or discovered
    for name in names:
        if name in LANGUAGE_ARCHITECTURES:
            return LANGUAGE_ARCHITECTURES[name]
    named = ", ".join(repr(each[:100]) for each in names[:5]) or "none named in config.json"
    supported = ", ".join(f"{each.title} ({each.architecture})" for each in (*_LANGUAGE_MODELS, *_CLASSIFIERS))
    raise UnsupportedArchitecture(f"architecture {named} is not supported; supported: {supported}", param="model")
