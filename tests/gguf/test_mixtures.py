"""Mixtures in the real llama.cpp: exact with fewer and narrower experts; mistakes of a writer are caught."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from core.engine.exporters.gguf.cells import FAMILIES
from core.engine.exporters.gguf.family import Floats
from core.engine.exporters.gguf.settings import GgufSettings, read_settings
from core.engine.exporters.gguf.tensors import PlacedTensor
from core.engine.models.tensors import read_tensor
from secateur_wire.errors import ExportMismatch, InvalidRequest
from tests.gguf.cells import export_opened, nightly_but
from tests.gguf.mixtures import WAYS, cut_mixture
from tests.gguf.sabotages import Sabotage
from tests.gguf.trained import LONGER, MIXTURES, STEPS

_WHOLE = [way for way in WAYS if way != "per_layer"]


@pytest.mark.parametrize(
    ("family", "way"),
    nightly_but([(family, way) for family in MIXTURES for way in _WHOLE], [("qwen2-moe", "experts")]),
)
def test_a_mixture_is_exact_in_llama_cpp(family: str, way: str, tmp_path: Path) -> None:
    folder = cut_mixture(tmp_path, family, way)
    settings = read_settings(folder)
    number = settings.keys["expert_count"]
    assert settings.family.is_mixture and isinstance(number, int) and (number < 6 if way == "experts" else number == 6)
    if not settings.form.has_dense_lead:
        assert settings.keys["expert_feed_forward_length"] == settings.keys["feed_forward_length"]
    exported = {each.type: each for each in export_opened(folder, "F32", "F16", "Q8_0").files}
    assert exported["F32"].kl is not None and exported["F32"].kl < 1e-9
    assert not any(each.other_types for each in exported.values())


def test_every_family_is_tried() -> None:
    assert sum(each.is_mixture for each in FAMILIES.values()) == len(MIXTURES)


@pytest.mark.parametrize("family", [pytest.param(each, marks=pytest.mark.nightly) for each in MIXTURES])
def test_layers_of_different_widths_are_refused_before_a_job_is_queued(family: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"llama\.cpp needs one shape for all layers"):
        cut_mixture(tmp_path, family, "per_layer")


def _swapped(tensors: list[PlacedTensor], settings: GgufSettings) -> list[PlacedTensor]:
    """Return the gates of experts in the place of their channels, and the other way round."""
    other = {"ffn_gate_exps": "ffn_up_exps", "ffn_up_exps": "ffn_gate_exps"}
    return [
        replace(each, name=each.name.replace(each.module, other[each.module])) if each.module in other else each
        for each in tensors
    ]


def _turned(weight: Floats, tensor: PlacedTensor, settings: GgufSettings) -> Floats:
    """Return the router's rows one further on."""
    return numpy.roll(weight, 1, axis=0) if tensor.module == "ffn_gate_inp" else weight


def _changed(**changes: bool | int | float) -> Callable[[GgufSettings], GgufSettings]:
    """Return what changes those keys that a family has; dots are underscores here."""

    def changed(settings: GgufSettings) -> GgufSettings:
        new = {key: changes[key.replace(".", "_")] for key in settings.keys if key.replace(".", "_") in changes}
        return replace(settings, keys=settings.keys | new)

    return changed


def _no_bias(tensors: list[PlacedTensor], settings: GgufSettings) -> list[PlacedTensor]:
    return [each for each in tensors if each.module != "exp_probs_b"]


def _channels_together(weight: Floats, tensor: PlacedTensor, settings: GgufSettings) -> Floats:
    """Return the gates and channels of experts as if all gates came first, where they come in turn."""
    if tensor.module not in ("ffn_gate_exps", "ffn_up_exps"):
        return weight
    (entry,) = tensor.entries
    both, half = read_tensor(entry).float().numpy(), weight.shape[1]
    both = both if both.ndim == 2 else both.swapaxes(1, 2)
    return both[:, :half] if tensor.module == "ffn_gate_exps" else both[:, half:]


def _features_turned(weight: Floats, tensor: PlacedTensor, settings: GgufSettings) -> Floats:
    """Return the latent vector's features one further on, as if it began with the turned ones."""
    return numpy.roll(weight, 16, axis=0) if tensor.module == "attn_kv_a_mqa" else weight


SABOTAGES = {
    "swapped": Sabotage("gate and up of experts swapped", tensors=_swapped),
    "router": Sabotage("the router's rows in another order", weights=_turned),
    "fewer": Sabotage("a token goes to one expert alone", settings=_changed(expert_used_count=1)),
    "scores": Sabotage("a softmax for a sigmoid, or the other way round", settings=_changed(expert_gating_func=1)),
    "scale": Sabotage("no scale of what experts give", settings=_changed(expert_weights_scale=1.0)),
    "groups": Sabotage("no groups of experts", settings=_changed(expert_group_count=1, expert_group_used_count=1)),
    "attention": Sabotage("no scale of attention with YaRN", settings=_changed(rope_scaling_yarn_log_multiplier=0.0)),
    "bias": Sabotage("no bias of the router", tensors=_no_bias),
    "channels": Sabotage("gates and channels apart", weights=_channels_together),
    "latent": Sabotage("the latent vector's features in another order", weights=_features_turned),
}
_ROUTED = ("deepseek-v2", "deepseek-v3", "glm4-moe")
"""Families whose experts do little at first beside those that every token goes to."""
_ONLY_IN = {
    "scores": ("deepseek-v3", "glm4-moe"),
    "scale": ("deepseek-v3", "glm4-moe"),
    "groups": ("deepseek-v3",),
    "attention": ("deepseek-v2", "deepseek-v3"),
    "bias": ("deepseek-v3",),
    "channels": ("gpt-oss",),
    "latent": ("deepseek-v2", "deepseek-v3"),
}
"""Families that a mistake can be made in; the others can be made in all."""


@pytest.mark.parametrize(
    ("family", "name"),
    nightly_but(
        [(family, name) for name in SABOTAGES for family in _ONLY_IN.get(name, MIXTURES)], [("mixtral", "router")]
    ),
)
def test_a_mistake_in_a_mixture_is_caught(family: str, name: str, tmp_path: Path) -> None:
    folder = cut_mixture(tmp_path, family, "uncut", training_steps=LONGER if family in _ROUTED else STEPS)
    with SABOTAGES[name].done(), pytest.raises(ExportMismatch, match="mean KL divergence"):
        export_opened(folder, "F16")


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("Qwen2MoeForCausalLM", {"norm_topk_prob": True, "shared_expert_intermediate_size": 8}, "normalised gates"),
        ("Qwen3MoeForCausalLM", {"norm_topk_prob": False}, "gates that are not normalised"),
        ("OlmoeForCausalLM", {"norm_topk_prob": False, "clip_qkv": 1.0}, "limits of queries, keys and values"),
        ("DeepseekV2ForCausalLM", {"topk_method": "group_limited_greedy"}, "the two best of each"),
        ("DeepseekV2ForCausalLM", {"topk_method": "greedy", "mlp_bias": True}, "biases of the FFN"),
        ("DeepseekV3ForCausalLM", {"rope_interleave": False}, "turn halves"),
        ("DeepseekV3ForCausalLM", {"rope_interleave": True, "attention_bias": True}, "biases of attention"),
        ("GptOssForCausalLM", {"swiglu_alpha": 1.702, "swiglu_limit": 5.0}, "gates of swiglu_limit 5"),
    ],
)
def test_settings_that_llama_cpp_does_not_compute_are_refused(
    family: str, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        FAMILIES[family].keys(changes)
