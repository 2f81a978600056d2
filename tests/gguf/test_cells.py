"""Cells of the matrix in the real llama.cpp: what is offered is exact there, what is not is refused with a reason.

A mistake of the writer is caught in every cell it applies to.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from gguf import GGUFWriter
from safetensors.numpy import load_file

from core.engine.exporters.gguf import exporter, tensors, writer
from core.engine.exporters.gguf.info import INFO
from core.engine.exporters.gguf.settings import GgufSettings, read_settings
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.gguf_header import ARCHITECTURES
from core.errors import ExportFailed, ExportMismatch, InvalidRequest, SecateurError
from core.pipeline.messages import ImportGgufSpec
from core.pipeline.recipes.outputs import cut_of
from core.pipeline.stages.models import import_gguf
from tests.gguf.cells import WAYS, Way, cut_trained, export
from tests.gguf.trained import FAMILIES, save_trained

Cell = tuple[str, str]
IN_EVERY_RUN: Sequence[Cell] = [("qwen2", "heads"), ("gemma2", "layers"), ("gpt2", "channels"), ("llama", "per_layer")]
HEADLESS = ("gpt2", "olmo2", "phi3", "starcoder2", "stablelm", "stablelm-parallel", "gpt-neox", "glm")
"""Families whose heads are, to llama.cpp, as wide as the model together."""
REFUSED: dict[Cell, str] = (
    {(name, "heads"): "takes the size of a head" for name in ("olmo2", "phi3", "starcoder2", "glm")}
    | {(name, "layers"): "takes from the number of a layer" for name in ("gemma3", "smollm3")}
    | {
        (name, "per_layer"): "has one shape for all layers"
        for name in FAMILIES
        if name not in ("llama", "mistral", "qwen2")
    }
)


def nightly_but(cells: Sequence[Cell], in_every_run: Sequence[Cell]) -> list[object]:
    assert set(in_every_run) <= set(cells)
    return [
        pytest.param(*cell, marks=() if cell in in_every_run else pytest.mark.nightly, id="-".join(cell))
        for cell in cells
    ]


@pytest.mark.parametrize(
    ("family", "way"),
    nightly_but([(name, way) for name in FAMILIES for way in WAYS if (name, way) not in REFUSED], IN_EVERY_RUN),
)
def test_a_cell_is_exact_in_llama_cpp_and_comes_back(family: str, way: str, tmp_path: Path) -> None:
    folder = cut_trained(tmp_path, family, way)
    in_full = (family, way) not in IN_EVERY_RUN
    kinds = ["F32", "F16", "Q8_0"] if in_full else ["F16"]
    exported = {each.type: each for each in export(folder, *kinds).files}
    assert exported["F16"].kl is not None and exported["F16"].kl < 1e-6, "the others have bounds of their own"
    assert not any(each.other_types for each in exported.values())
    settings = read_settings(open_model(folder, own_artifact=True))
    assert settings.context > 40, "of more tokens than a window has"
    if settings.form.name not in ARCHITECTURES:
        return
    for kind in exported.keys() - {"Q8_0"}:
        import_gguf(ImportGgufSpec(source=folder / f"model-{kind}.gguf", target=tmp_path / kind))
        before, after = (load_file(each / "model.safetensors") for each in (folder, tmp_path / kind))
        assert before.keys() == after.keys()
        for name, weight in before.items():
            stored = weight.astype(numpy.float16) if kind == "F16" and weight.ndim > 1 else weight
            # The offset of a norm is added in float32, which rounds what is less than 2^-24 of it.
            most = 2**-23 if settings.family.norm_offset and name.endswith("norm.weight") else 0
            assert numpy.abs(after[name] - stored).max() <= most, name


@pytest.mark.parametrize(
    ("family", "way"), nightly_but(list(REFUSED), [("phi3", "heads"), ("gemma3", "layers"), ("gemma2", "per_layer")])
)
def test_a_cell_that_is_not_offered_is_refused_before_a_job_is_queued(family: str, way: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=f"llama.cpp {REFUSED[family, way]}.*, or leave gguf out") as refused:
        cut_trained(tmp_path, family, way, training_steps=0)
    assert refused.value.param == "output.exports.0.types"


def test_biases_that_a_method_leaves_are_refused_where_there_is_no_room_for_them(tmp_path: Path) -> None:
    for family in ("llama", "qwen2", "qwen3"):
        description = open_model(save_trained(tmp_path / family, family, training_steps=0)).description
        cut = cut_of(description, Way("flap", 0.15).request(description))
        if family == "qwen3":
            with pytest.raises(InvalidRequest, match="has Qwen3ForCausalLM without biases"):
                INFO.check_types(description, ["F16"], cut, "types")
        else:
            INFO.check_types(description, ["F16"], cut, "types")


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("gemma3", {"layer_types": ["full_attention"] + ["sliding_attention"] * 5}, "full attention in layers 0 of 6"),
        ("gemma3", {"query_pre_attn_scalar": 16}, "attention scaled by 16"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 1]}, "no rotary embeddings in layers 1"),
        ("olmo2", {"tie_word_embeddings": True}, "Olmo2ForCausalLM with a head that is not the embeddings"),
        ("stablelm", {"qk_layernorm": True}, "norms of the queries and keys"),
        ("qwen3", {"attention_bias": True}, "biases of the outputs"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "attention scaled by the layer"),
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


Sabotage = Callable[[pytest.MonkeyPatch], None]


def without_keys(*names: str) -> Sabotage:
    def sabotage(monkeypatch: pytest.MonkeyPatch) -> None:
        def read(folder: ModelFolder) -> GgufSettings:
            settings = read_settings(folder)
            return replace(settings, keys={key: each for key, each in settings.keys.items() if key not in names})

        monkeypatch.setattr(exporter, "read_settings", read)

    return sabotage


def in_family(**changes: object) -> Sabotage:
    def sabotage(monkeypatch: pytest.MonkeyPatch) -> None:
        def read(folder: ModelFolder) -> GgufSettings:
            settings = read_settings(folder)
            return replace(settings, family=replace(settings.family, **changes))

        monkeypatch.setattr(exporter, "read_settings", read)

    return sabotage


def unpermuted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "_neighbours", lambda weight, heads: weight)


def gate_and_up_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"ffn_gate": "ffn_up", "ffn_up": "ffn_gate"}

    def placed(folder: ModelFolder, settings: GgufSettings) -> list[tensors.PlacedTensor]:
        return [
            replace(each, name=each.name.replace(each.module, other.get(each.module, each.module)))
            for each in tensors.placed_tensors(folder, settings)
        ]

    monkeypatch.setattr(writer, "placed_tensors", placed)


def without_biases(monkeypatch: pytest.MonkeyPatch) -> None:
    def placed(folder: ModelFolder, settings: GgufSettings) -> list[tensors.PlacedTensor]:
        found = tensors.placed_tensors(folder, settings)
        return [each for each in found if not each.name.endswith(("q.bias", "k.bias", "v.bias"))]

    monkeypatch.setattr(writer, "placed_tensors", placed)


def another_pre_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        GGUFWriter, "add_tokenizer_pre", lambda self, pre: self.add_string("tokenizer.ggml.pre", "deepseek-coder")
    )


GATED = [name for name in FAMILIES if name not in ("gpt2", "phi3", "starcoder2", "gpt-neox", "glm")]
HEAD_SIZE = without_keys("attention.key_length", "attention.value_length", "rope.dimension_count")
SABOTAGES: dict[str, tuple[Sabotage, str, Sequence[Cell]]] = {
    "unpermuted": (
        unpermuted,
        "mean KL divergence",
        [
            *((name, "uncut") for name in ("llama", "mistral", "granite", "smollm3")),
            ("qwen2", "heads"),
            ("llama", "per_layer"),
        ],
    ),
    "without_head_size": (
        HEAD_SIZE,
        r"does not load model-F16\.gguf",
        [(name, "heads") for name in FAMILIES if name not in HEADLESS],
    ),
    "gate_and_up_swapped": (gate_and_up_swapped, "mean KL divergence", [(name, "uncut") for name in GATED]),
    "another_pre_tokenizer": (
        another_pre_tokenizer,
        "the artifact's tokenizer as",
        [(name, "uncut") for name in FAMILIES],
    ),
    "without_biases": (without_biases, "mean KL divergence", [("qwen2", "heads")]),
    "without_norm_offset": (
        in_family(norm_offset=0.0),
        "mean KL divergence",
        [("gemma2", "uncut"), ("gemma3", "uncut")],
    ),
    "without_window": (
        without_keys("attention.sliding_window"),
        "mean KL divergence",
        [("gemma2", "uncut"), ("gemma3", "uncut")],
    ),
    "without_caps": (
        without_keys("attn_logit_softcapping", "final_logit_softcapping"),
        "mean KL divergence",
        [("gemma2", "uncut")],
    ),
    "in_file_order": (in_family(reorder={}), "mean KL divergence", [("gpt-neox", "uncut")]),
    "without_factors": (
        without_keys("attention.scale", "embedding_scale", "residual_scale"),
        "mean KL divergence",
        [("granite", "uncut")],
    ),
}


@pytest.mark.parametrize(
    ("sabotage", "family", "way"),
    [
        pytest.param(
            name,
            *cell,
            marks=() if name in ("unpermuted", "without_head_size", "gate_and_up_swapped", "another_pre_tokenizer")
            and cell[0] == "llama" and cell[1] != "per_layer" else pytest.mark.nightly,
        )
        for name, (_, _, cells) in SABOTAGES.items()
        for cell in cells
    ],
)  # fmt: skip
def test_a_mistake_of_the_writer_is_caught_in_llama_cpp(
    sabotage: str, family: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Others take longer than Llama to learn what a mistake could spoil by more than the gate allows.
    folder = cut_trained(tmp_path, family, way, **({} if family == "llama" else {"training_steps": 300}))
    do, said, _ = SABOTAGES[sabotage]
    do(monkeypatch)
    caught_by: type[SecateurError] = ExportFailed if sabotage == "without_head_size" else ExportMismatch
    if sabotage == "another_pre_tokenizer":
        with pytest.raises(caught_by, match=said):
            exporter.GgufFiles().require_possible(folder, own_artifact=True)
    with pytest.raises(caught_by, match=said):
        export(folder, "Q8_0")
    assert not list(folder.glob("*Q8_0*")), "no other type follows"
