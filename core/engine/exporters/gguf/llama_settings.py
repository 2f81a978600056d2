"""Settings of a Llama or Mistral as llama.cpp's architecture `llama` has them, read from config.json as data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.engine.checkpoints.files import CONFIG_FILE
from core.errors import InvalidRequest

PARAM = "output.exports"


@dataclass(frozen=True)
class LlamaSettings:
    """Settings that shapes and arithmetic follow from. `context` is as far as both runtimes compute the same."""

    layers: int
    hidden: int
    channels: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    epsilon: float
    rotary_base: float
    is_tied: bool
    window: int | None


def read_settings(folder: Path) -> LlamaSettings:
    """Read the settings of a folder; raises InvalidRequest for those that llama.cpp's architecture does not have."""
    config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_bytes())
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise _refusal(f"activations of {activation!r}", "silu")
    for name in ("attention_bias", "mlp_bias"):
        if config.get(name):
            raise _refusal(f"biases ({name})", "none")
    rotary = _rotary(config)
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind != "default":
        raise _refusal(f"rotary embeddings scaled by {kind!r}", "those of no scaling")
    heads = config["num_attention_heads"]
    window = config.get("sliding_window")
    context = config["max_position_embeddings"]
    return LlamaSettings(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        channels=config["intermediate_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_size=config.get("head_dim") or config["hidden_size"] // heads,
        vocabulary=config["vocab_size"],
        context=context if window is None else min(context, window),
        epsilon=config.get("rms_norm_eps", 1e-6),
        rotary_base=rotary.get("rope_theta", config.get("rope_theta", 10000.0)),
        is_tied=config.get("tie_word_embeddings", False),
        window=None if window is None or window >= context else window,
    )


def _rotary(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _refusal(what: str, would_do: str) -> InvalidRequest:
    return InvalidRequest(
        f"{PARAM}: this model has {what}, GGUF files are written of models with {would_do}: leave gguf out, or choose "
        "such a model",
        param=PARAM,
    )
