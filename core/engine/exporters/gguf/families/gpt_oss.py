"""GPT-OSS: a sink in each head, windows in every other layer, and experts with biases and gates of a fixed shape."""

from typing import Final

from core.engine.exporters.gguf.family import Config, GgufFamily, GgufForm, Keys, Part, window_period
from core.engine.exporters.gguf.gemma import is_sliding
from core.engine.exporters.gguf.mixtures import MODULES, unchanged
from core.engine.exporters.gguf.refusal import refusal

_PERIOD: Final = 2
_GATE: Final = {"swiglu_alpha": 1.702, "swiglu_limit": 7.0}
"""Constants of the gate in llama.cpp."""
_EXPERTS: Final[dict[str, dict[str, Part]]] = {
    "mlp.experts.gate_up_proj": {
        "ffn_gate_exps.weight": lambda heads, keys, stack: stack[..., ::2].swapaxes(1, 2),
        "ffn_up_exps.weight": lambda heads, keys, stack: stack[..., 1::2].swapaxes(1, 2),
    },
    "mlp.experts.gate_up_proj_bias": {
        "ffn_gate_exps.bias": lambda heads, keys, biases: biases[:, ::2],
        "ffn_up_exps.bias": lambda heads, keys, biases: biases[:, 1::2],
    },
    "mlp.experts.down_proj": {"ffn_down_exps.weight": lambda heads, keys, stack: stack.swapaxes(1, 2)},
    "mlp.experts.down_proj_bias": {"ffn_down_exps.bias": unchanged},
    "self_attn.sinks": {"attn_sinks.weight": unchanged},
}


def _keys(config: Config) -> Keys:
    for name, value in _GATE.items():
        if config[name] != value:
            raise refusal(f"gates of {name} {config[name]}", f"{value} there, which llama.cpp computes")
    if not config["attention_bias"]:
        raise refusal("attention without biases", "biases there")
    sliding = is_sliding(config)
    if window_period(sliding, _PERIOD) != _PERIOD:
        raise refusal("other windows than in every other layer from the first on", "those alone")
    return {"attention.sliding_window": int(config["sliding_window"])}


FAMILY = GgufFamily(
    "GptOssForCausalLM",
    (GgufForm("gpt-oss", has_head_size=True, has_yarn=True, has_biases=True, is_tied=False),),
    modules={**MODULES, "post_attention_layernorm": "post_attention_norm", "mlp.router": "ffn_gate_inp"},
    keys=_keys,
    parameters=_EXPERTS,
    slides=True,
    layers_are_numbered=True,
)
