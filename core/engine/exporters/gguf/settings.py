"""Settings of a model in llama.cpp's terms, from its config and the shapes of its tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from transformers import PretrainedConfig

from core.engine.architectures.description import require_structure
from core.engine.exporters.gguf.families import written_form
from core.engine.exporters.gguf.family import GgufFamily, GgufForm, Keys, refusal
from core.engine.models.folder import ModelFolder

_ACTIVATION: Final = ("hidden_act", "hidden_activation", "activation_function")
_EPSILON: Final = ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon")
"""Names of one setting in different configs."""


class RotaryScaling(BaseModel):
    """Scaling of rotary embeddings as in Llama 3.1: slow pairs turn slower by `factor`, fast ones stay unchanged."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class Rotary:
    """Rotary embeddings: the number of turning features of a head, and the base of their frequencies."""

    size: int
    base: float
    scaling: RotaryScaling | None


@dataclass(frozen=True)
class GgufSettings:
    """Settings that determine shapes and arithmetic; `keys` are the metadata of the form. Heads are counted by layer.

    With `window`, the file's context length is that of a sliding window, because llama.cpp has none for the model.
    """

    family: GgufFamily
    form: GgufForm
    keys: Keys
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    head_size: int
    vocabulary: int
    context: int
    window: int | None
    rotary: Rotary | None
    is_tied: bool


def read_settings(folder: ModelFolder) -> GgufSettings:
    """Read the settings of a folder; raises InvalidRequest for settings that llama.cpp does not compute."""
    description, config = folder.description, folder.config
    family, form = written_form(description)
    activation = _first(config, _ACTIVATION)
    if activation not in family.activations:
        raise refusal(f"activations of {activation!r}", " or ".join(family.activations))
    outputs = (f"{folder.family.blocks}.0.{each.output}.bias" for each in folder.family.sublayers)
    if not form.has_biases and any(each in folder.tensors for each in outputs):
        raise refusal("biases of the outputs of attention or FFN", "none there")
    structure = require_structure(description)
    head_size = structure.facts["head_dim"]
    channels, heads, kv_heads = (
        tuple(layer.sizes[each] for layer in structure.layers) for each in ("channels", "heads", "kv_heads")
    )
    if not folder.family.axes("heads"):  # no tensor tells the number of heads from the number of keys
        kv_heads = tuple(getattr(config, "num_key_value_heads", None) or each for each in heads)
    keys: Keys = {
        "block_count": description.layers,
        "context_length": description.context_length,
        "embedding_length": description.hidden_size,
        "feed_forward_length": _by_layer(form, channels),
        "attention.head_count": _by_layer(form, heads),
        "attention.head_count_kv": _by_layer(form, kv_heads),
        "attention.key_length": head_size,
        "attention.value_length": head_size,
        "vocab_size": description.vocabulary_size,
    }
    if hasattr(config, "rms_norm_eps"):
        keys["attention.layer_norm_rms_epsilon"] = float(config.rms_norm_eps)
    else:
        keys["attention.layer_norm_epsilon"] = float(_first(config, _EPSILON))
    parameters = getattr(config, "rope_parameters", None)
    rotary = None
    if parameters is not None:
        rotary, rotary_keys = _rotary(parameters.get("full_attention", parameters), form, head_size)
        keys |= rotary_keys
    if family.is_mixture:
        keys |= _experts(folder, form, channels)
    window = None if family.slides else getattr(config, "sliding_window", None) or None
    if window is not None:
        keys["context_length"] = min(window, description.context_length)
    keys |= family.keys(config.to_dict())
    context = keys["context_length"]
    assert isinstance(context, int)
    return GgufSettings(
        family=family,
        form=form,
        keys=keys,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        vocabulary=description.vocabulary_size,
        context=context,
        window=context if context < description.context_length else None,
        rotary=rotary,
        is_tied=description.tied_embeddings,
    )


def _experts(folder: ModelFolder, form: GgufForm, channels: Sequence[int]) -> Keys:
    """Return the keys of experts; every layer with experts has the same number of them, and all have the same width."""
    experts = folder.family.experts
    assert experts is not None, "of a mixture"
    counts = [layer.sizes.get("experts", 0) for layer in require_structure(folder.description).layers]
    lead = next((layer for layer, count in enumerate(counts) if count), 0) if form.has_dense_lead else 0
    numbers = set(counts[lead:])
    if len(numbers) > 1 or 0 in numbers:
        raise refusal(
            f"{' or '.join(map(str, sorted(numbers)))} experts a layer",
            "one number in all layers, as llama.cpp reads one (expert_count)",
        )
    keys: Keys = {
        "expert_count": numbers.pop(),
        "expert_used_count": experts.top_k,
        "expert_feed_forward_length": channels[lead],
    }
    return keys | {"leading_dense_block_count": lead} if form.has_dense_lead else keys


def _first(config: PretrainedConfig, names: Sequence[str]) -> Any:
    return next(getattr(config, name) for name in names if hasattr(config, name))


def _by_layer(form: GgufForm, numbers: tuple[int, ...]) -> int | list[int]:
    return list(numbers) if form.has_layers else numbers[0]


def _rotary(parameters: Mapping[str, Any], form: GgufForm, head_size: int) -> tuple[Rotary, Keys]:
    """Return the rotary embeddings and their keys; raises the refusal of an unsupported scaling."""
    kind = parameters.get("rope_type", "default")
    size, base = int(head_size * parameters.get("partial_rotary_factor", 1.0)), float(parameters["rope_theta"])
    keys: Keys = {"rope.dimension_count": head_size if form.rotates_all else size, "rope.freq_base": base}
    scaling = None
    if kind == "llama3" and form.scales_rotary:
        scaling = RotaryScaling.model_validate(parameters)
    elif kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(parameters["factor"])}
    elif kind == "yarn" and form.has_yarn:
        keys |= _yarn(parameters)
    elif kind != "default":
        known = ["'linear'", *(["'llama3'"] if form.scales_rotary else []), *(["'yarn'"] if form.has_yarn else [])]
        raise refusal(f"rotary embeddings scaled by {kind!r}", f"scaling by {', '.join(known)}, or none")
    return Rotary(size, base, scaling), keys


def _yarn(parameters: Mapping[str, Any]) -> Keys:
    """Return the keys of YaRN, by which fast pairs keep their frequency and slow ones turn slower."""
    if parameters.get("attention_factor") is not None:
        raise refusal("YaRN with an attention_factor of its own", "the one that follows from its factor")
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(parameters["factor"]),
        "rope.scaling.original_context_length": int(parameters["original_max_position_embeddings"]),
        "rope.scaling.yarn_beta_fast": float(parameters.get("beta_fast") or 32),
        "rope.scaling.yarn_beta_slow": float(parameters.get("beta_slow") or 1),
    }
