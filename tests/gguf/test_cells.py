"""Cells of the matrix in the real llama.cpp: what is offered is exact there, what is not is refused with a reason."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import load_file

from core.engine.exporters.gguf.families import FAMILIES as GGUF_FAMILIES
from core.engine.exporters.gguf.info import INFO
from core.engine.exporters.gguf.settings import read_settings
from core.engine.models.folder import open_model
from core.engine.models.gguf_header import ARCHITECTURES
from core.pipeline.recipes.outputs import losses_of
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.sources_spec import ImportGgufSpec
from core.progress import Progress
from secateur_wire.errors import InvalidRequest
from tests.gguf.cells import (
    MIXTURE_WAYS,
    WAYS,
    Cell,
    Way,
    cut_mixture,
    cut_trained,
    export,
    export_opened,
    nightly_but,
)
from tests.gguf.trained import FAMILIES, MINUTE, MIXTURES, STEPS, save_trained

IN_EVERY_RUN: Sequence[Cell] = [
    *(("qwen2", "heads"), ("gemma2", "layers"), ("gpt2", "channels"), ("glm", "per_layer")),
    *((name, "uncut") for name in ("phi3", "qwen3", "stablelm", "starcoder2")),
]
REFUSED: dict[Cell, str] = (
    {(name, "heads"): "computes the size of a head" for name in ("olmo2", "starcoder2")}
    | {(name, "layers"): "decides by the number of a layer" for name in ("gemma3", "smollm3")}
    | {
        (name, "per_layer"): "needs one shape for all layers"
        for name in FAMILIES
        if name not in ("llama", "mistral", "qwen2", "qwen3", "qwen3-tied", "phi3", "glm")
    }
    | {("qwen3", "per_layer"): "allows layers of different shapes, of Qwen3ForCausalLM, only with the embeddings"}
)


@pytest.mark.parametrize(
    ("family", "way"),
    nightly_but([(name, way) for name in FAMILIES for way in WAYS if (name, way) not in REFUSED], IN_EVERY_RUN),
)
def test_a_cell_is_exact_in_llama_cpp_and_comes_back(family: str, way: str, tmp_path: Path) -> None:
    in_full = (family, way) not in IN_EVERY_RUN
    folder = cut_trained(tmp_path, family, way, training_steps=MINUTE if in_full else STEPS)
    kinds = ["F32", "F16", "Q8_0"] if in_full else ["F16"]
    exported = {each.type: each for each in export(folder, *kinds).files}
    assert exported["F16"].kl is not None and exported["F16"].kl < 1e-5, "the others have bounds of their own"
    if in_full and way == "uncut":  # others may be sure of what is wrong
        vocabulary = open_model(folder).description.vocabulary_size
        assert exported["F16"].perplexity is not None and exported["F16"].perplexity < vocabulary / 20, "far from even"
    assert not any(each.other_types for each in exported.values())
    settings = read_settings(open_model(folder, own_artifact=True))
    assert settings.context > 40, "of more tokens than a window has"
    if settings.form.name not in ARCHITECTURES or settings.form.parts:  # what is fused comes back apart
        return
    for kind in exported.keys() - {"Q8_0"}:
        run_stage(ImportGgufSpec(source=folder / f"model-{kind}.gguf", target=tmp_path / kind), Progress(), lambda: 0)
        before, after = (load_file(each / "model.safetensors") for each in (folder, tmp_path / kind))
        assert before.keys() == after.keys()
        for name, weight in before.items():
            stored = weight.astype(numpy.float16) if kind == "F16" and weight.ndim > 1 else weight
            # The offset of a norm is added in float32, which rounds what is less than 2^-24 of it.
            most = 2**-23 if settings.family.norm_offset and name.endswith("norm.weight") else 0
            assert numpy.abs(after[name] - stored).max() <= most, name


@pytest.mark.parametrize(("family", "way"), [("olmo2", "heads"), ("gemma3", "layers"), ("gemma2", "per_layer")])
def test_a_cell_that_is_not_offered_is_refused_before_a_job_is_queued(family: str, way: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=f"llama.cpp {REFUSED[family, way]}.*, or leave gguf out") as refused:
        cut_trained(tmp_path, family, way, training_steps=0)
    assert refused.value.param == "output.exports.0.types"


def test_biases_that_a_method_leaves_are_refused_where_there_is_no_room_for_them(tmp_path: Path) -> None:
    for family in ("llama", "qwen2", "qwen3"):
        description = open_model(save_trained(tmp_path / family, family, training_steps=0)).description
        cut = losses_of(description, Way("flap", 0.15).request(description))
        if family == "qwen3":
            with pytest.raises(InvalidRequest, match="has Qwen3ForCausalLM without biases"):
                INFO.check_types(description, ["F16"], cut, "types")
        else:
            INFO.check_types(description, ["F16"], cut, "types")


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("gemma3", {"layer_types": ["full_attention"] + ["sliding_attention"] * 5}, "full attention in layers 0 of 6"),
        ("gemma3", {"query_pre_attn_scalar": 16}, "query_pre_attn_scalar 16.* query_pre_attn_scalar 32"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 1]}, r"no_rope_layers \[1, 0, 1, 1\]"),
        ("olmo2", {"tie_word_embeddings": True}, "Olmo2ForCausalLM with a head that is not the embeddings"),
        ("stablelm", {"qk_layernorm": True}, "qk_layernorm true"),
        ("qwen3", {"attention_bias": True}, "biases of the outputs"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx true"),
        ("qwen2", {"hidden_act": "gelu"}, "activations of 'gelu'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "scaled by 'yarn'"),
    ],
)
def test_settings_that_llama_cpp_does_not_compute_are_refused(
    family: str, changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    folder = open_model(save_trained(tmp_path, family, training_steps=0, **changes))
    with pytest.raises(InvalidRequest, match=said):
        read_settings(folder)


@pytest.mark.parametrize(
    ("family", "way"),
    nightly_but(
        [(family, way) for family in MIXTURES for way in MIXTURE_WAYS if way != "per_layer"], [("qwen2-moe", "experts")]
    ),
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
        ("Qwen2MoeForCausalLM", {"norm_topk_prob": True, "shared_expert_intermediate_size": 8}, "norm_topk_prob true"),
        ("Qwen3MoeForCausalLM", {"norm_topk_prob": False}, "norm_topk_prob false"),
        ("OlmoeForCausalLM", {"norm_topk_prob": False, "clip_qkv": 1.0}, "clip_qkv 1.0"),
        ("DeepseekV2ForCausalLM", {"topk_method": "group_limited_greedy"}, 'topk_method "greedy"'),
        ("DeepseekV2ForCausalLM", {"topk_method": "greedy", "mlp_bias": True}, "mlp_bias true"),
        ("DeepseekV3ForCausalLM", {"rope_interleave": False}, "rope_interleave false"),
        ("DeepseekV3ForCausalLM", {"rope_interleave": True, "attention_bias": True}, "attention_bias true"),
        ("GptOssForCausalLM", {"swiglu_alpha": 1.702, "swiglu_limit": 5.0}, "swiglu_limit 5.0"),
    ],
)
def test_settings_of_mixtures_that_llama_cpp_does_not_compute_are_refused(
    family: str, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        GGUF_FAMILIES[family].keys(changes)
