"""Mixtures in the real llama.cpp: exact with fewer and narrower experts; mistakes of a writer are caught."""

from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from core.engine.exporters.gguf.cells import FAMILIES
from core.engine.exporters.gguf.family import Floats
from core.engine.exporters.gguf.settings import GgufSettings, read_settings
from core.engine.exporters.gguf.tensors import PlacedTensor
from secateur_wire.errors import ExportMismatch, InvalidRequest
from tests.gguf.cells import export_opened, nightly_but
from tests.gguf.mixtures import WAYS, cut_mixture
from tests.gguf.sabotages import Sabotage
from tests.gguf.trained import MIXTURES

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
    assert settings.keys["expert_feed_forward_length"] == settings.keys["feed_forward_length"]
    exported = {each.type: each for each in export_opened(folder, "F32", "F16", "Q8_0").files}
    assert exported["F32"].kl is not None and exported["F32"].kl < 1e-9
    assert not any(each.other_types for each in exported.values())


def test_six_families_are_taken() -> None:
    assert sum(each.is_mixture for each in FAMILIES.values()) == len(MIXTURES)


@pytest.mark.parametrize("family", [pytest.param(each, marks=pytest.mark.nightly) for each in MIXTURES])
def test_layers_of_different_widths_are_refused_before_a_job_is_queued(family: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"llama\.cpp has one shape for all layers"):
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


def _fewer(settings: GgufSettings) -> GgufSettings:
    """Return settings by which a token goes to one expert alone."""
    return replace(settings, keys=settings.keys | {"expert_used_count": 1})


SABOTAGES = {
    "swapped": Sabotage("gate and up of experts swapped", tensors=_swapped),
    "router": Sabotage("the router's rows in another order", weights=_turned),
    "fewer": Sabotage("fewer experts a token", settings=_fewer),
}


@pytest.mark.parametrize(
    ("family", "name"),
    nightly_but([(family, name) for family in MIXTURES for name in SABOTAGES], [("mixtral", "router")]),
)
def test_a_mistake_in_a_mixture_is_caught(family: str, name: str, tmp_path: Path) -> None:
    folder = cut_mixture(tmp_path, family, "uncut")
    with SABOTAGES[name].done(), pytest.raises(ExportMismatch, match="mean KL divergence"):
        export_opened(folder, "F16")


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("Qwen2MoeForCausalLM", {"norm_topk_prob": True, "shared_expert_intermediate_size": 8}, "normalised gates"),
        ("Qwen3MoeForCausalLM", {"norm_topk_prob": False}, "gates that are not normalised"),
        ("OlmoeForCausalLM", {"norm_topk_prob": False, "clip_qkv": 1.0}, "limits of queries, keys and values"),
    ],
)
def test_settings_that_llama_cpp_does_not_compute_are_refused(
    family: str, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        FAMILIES[family].keys(changes)
