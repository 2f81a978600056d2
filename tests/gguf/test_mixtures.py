"""Mixtures in the real llama.cpp: exact with fewer and narrower experts; mistakes of a writer are caught."""

from pathlib import Path

import pytest

from core.engine.exporters.gguf.cells import FAMILIES
from core.engine.exporters.gguf.settings import read_settings
from secateur_wire.errors import InvalidRequest
from tests.gguf.cells import export_opened, nightly_but
from tests.gguf.mixtures import WAYS, cut_mixture
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
    if not settings.form.has_dense_lead:
        assert settings.keys["expert_feed_forward_length"] == settings.keys["feed_forward_length"]
    exported = {each.type: each for each in export_opened(folder, "F32", "F16", "Q8_0").files}
    assert exported["F32"].kl is not None and exported["F32"].kl < 1e-9
    assert not any(each.other_types for each in exported.values())


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
