"""Settings of a Llama or Mistral as llama.cpp has them, read from config.json as data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from core.engine.architectures.heterogeneous import layer_settings
from core.engine.checkpoints.files import CONFIG_FILE
from core.errors import InvalidRequest

PARAM = "output.exports"


class RotaryScaling(BaseModel):
    """Scaling of rotary embeddings as Llama 3.1 has it: slow pairs turn slower by `factor`, fast ones as they did."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class LlamaSettings:
    """Settings that shapes and arithmetic follow from; channels and heads are by layer.

    `context` is as far as both runtimes compute the same.
    """

    hidden: int
    channels: tuple[int, ...]
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    head_size: int
    vocabulary: int
    context: int
    epsilon: float
    rotary_base: float
    rotary_scaling: RotaryScaling | None
    is_tied: bool
    window: int | None

    @property
    def architecture(self) -> str:
        """Return llama.cpp's name of what computes this: `deci` is `llama` with layers of different shapes."""
        return "llama" if all(len(set(each)) == 1 for each in (self.channels, self.heads, self.kv_heads)) else "deci"


def read_settings(folder: Path) -> LlamaSettings:
    """Read the settings of a folder; raises InvalidRequest for those that llama.cpp's architecture does not have."""
    config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_bytes())
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise _refusal(f"activations of {activation!r}", "silu")
    rotary = _rotary(config)
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise _refusal(f"rotary embeddings scaled by {kind!r}", "scaling by 'llama3', or none")
    layers = [{**config, **each} for each in layer_settings(config) or [{}] * config["num_hidden_layers"]]
    heads = tuple(each["num_attention_heads"] for each in layers)
    window = config.get("sliding_window")
    context = config["max_position_embeddings"]
    return LlamaSettings(
        hidden=config["hidden_size"],
        channels=tuple(each["intermediate_size"] for each in layers),
        heads=heads,
        kv_heads=tuple(each.get("num_key_value_heads") or each["num_attention_heads"] for each in layers),
        rotary_scaling=RotaryScaling.model_validate(rotary) if kind == "llama3" else None,
        head_size=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
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
