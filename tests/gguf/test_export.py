"""GGUF files of artifacts, run in the real llama.cpp: right ones pass the gate, and every mistake is caught by it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy
import psutil
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from safetensors.numpy import load_file, save_file

from core.engine.architectures.describe import describe_folder
from core.engine.architectures.heterogeneous import per_layer_config
from core.engine.architectures.registry import LANGUAGE_ARCHITECTURES
from core.engine.exporters.gguf import runtime, tensors, writer
from core.engine.exporters.gguf.exporter import GgufFiles
from core.engine.exporters.gguf.runtime import running_llama_cpp
from core.engine.exporters.protocols import AddedForm
from core.errors import ExportFailed, ExportMismatch, InvalidRequest, SecateurError
from core.pipeline.messages import ImportGgufSpec
from core.pipeline.recipes.outputs import resolve_output
from core.pipeline.recipes.parts import Output
from core.pipeline.stages.models import import_gguf
from core.service.jobs.schemas import JobBody
from tests.engine.tiny import make_model
from tests.gguf.trained import LINES, save_trained
from tests.model_folders import write_llama
from tests.runner.models import write_model

CUT = {
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "tie_word_embeddings": False,
    "attention_bias": True,
    "mlp_bias": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}
"""Settings of a model that lost half its heads, and has every bias: no default of llama.cpp is right for it."""


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    return save_trained(tmp_path / "cut", **CUT)


def export(folder: Path, *types: str) -> AddedForm:
    return GgufFiles().export(
        folder, types, LINES, name="small", device=torch.device("cpu"), threads=1, log=lambda text: None
    )


def test_files_of_all_types_predict_what_a_cut_model_does_and_none_else_is_left(cut: Path, tmp_path: Path) -> None:
    exported = export(cut, "F32", "Q8_0", "Q4_K_M")
    most = {"F32": 1e-9, "Q8_0": 1e-2, "Q4_K_M": 1e-1}
    assert [each.type for each in exported.files] == list(most)
    for each in exported.files:
        assert each.kl is not None and -1e-12 < each.kl < most[each.type]
        assert each.predictions is not None and each.predictions >= 2000
        assert each.bytes == (cut / each.file).stat().st_size
    assert {file.name for file in cut.glob("*.gguf*")} == {each.file for each in exported.files}
    import_gguf(ImportGgufSpec(source=cut / "model-F32.gguf", target=tmp_path / "back"))
    before, after = (load_file(folder / "model.safetensors") for folder in (cut, tmp_path / "back"))
    assert before.keys() == after.keys() and all(numpy.array_equal(before[name], after[name]) for name in before)
    others = [set().union(*each.other_types.values()) for each in exported.files]
    assert others[:2] == [set(), set()] and "blk.*.attn_q.weight" in others[2] and "model-Q4_K_M" in exported.notes[0]


def test_a_mistral_s_window_is_the_context_of_its_file(cut: Path) -> None:
    config = json.loads((cut / "config.json").read_bytes())
    config |= {"attention_bias": False, "mlp_bias": False}
    tensors = load_file(cut / "model.safetensors")
    save_file({name: each for name, each in tensors.items() if not name.endswith("bias")}, cut / "model.safetensors")
    config |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 48}
    (cut / "config.json").write_text(json.dumps(config))
    exported = export(cut, "F16")
    context = GGUFReader(cut / "model-F16.gguf").get_field("llama.context_length")
    assert context is not None and context.contents() == 48 and "the last 48" in exported.notes[0]


def test_rotary_embeddings_are_scaled_as_llama_3_has_it(cut: Path) -> None:
    config = json.loads((cut / "config.json").read_bytes())
    factors = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    config["rope_parameters"] |= {"rope_type": "llama3"} | factors
    (cut / "config.json").write_text(json.dumps(config))
    (exported,) = export(cut, "F16").files
    assert exported.kl is not None and exported.kl < 1e-6


def test_layers_of_different_shapes_are_those_of_another_architecture(cut: Path) -> None:
    config = json.loads((cut / "config.json").read_bytes())
    narrow = {"num_attention_heads": 1, "intermediate_size": 96}
    family = LANGUAGE_ARCHITECTURES["LlamaForCausalLM"]
    (cut / "config.json").write_text(json.dumps(per_layer_config(config, family, [{}, narrow])))
    weights = load_file(cut / "model.safetensors")
    for name in [each for each in weights if each.startswith("model.layers.1.")]:
        if ".q_proj." in name:
            weights[name] = weights[name][32:].copy()
        elif name.endswith("o_proj.weight"):
            weights[name] = weights[name][:, 32:].copy()
        elif ".gate_proj." in name or ".up_proj." in name:
            weights[name] = weights[name][:96].copy()
        elif name.endswith("down_proj.weight"):
            weights[name] = weights[name][:, :96].copy()
    save_file({family.module_name(name): each for name, each in weights.items()}, cut / "model.safetensors")
    export(cut, "F16")
    assert GGUFReader(cut / "model-F16.gguf").get_field("deci.attention.head_count") is not None


def unpermuted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "in_order", lambda name, weight, settings: weight)


def without_head_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("add_key_length", "add_value_length", "add_rope_dimension_count"):
        monkeypatch.setattr(GGUFWriter, name, lambda self, length: None)


def gate_and_up_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = {"mlp.gate_proj": "ffn_up", "mlp.up_proj": "ffn_gate"}
    monkeypatch.setattr(tensors, "IN_BLOCK", tensors.IN_BLOCK | swapped)


def another_pre_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        GGUFWriter, "add_tokenizer_pre", lambda self, pre: self.add_string("tokenizer.ggml.pre", "qwen2")
    )


@pytest.mark.parametrize(
    ("sabotage", "caught_by", "said"),
    [
        (unpermuted, ExportMismatch, "mean KL divergence"),
        (without_head_size, ExportFailed, r"does not load model-F16\.gguf"),
        (gate_and_up_swapped, ExportMismatch, "mean KL divergence"),
        (another_pre_tokenizer, ExportMismatch, "the artifact's tokenizer as"),
    ],
)
def test_a_mistake_of_the_writer_is_caught_in_llama_cpp(
    sabotage: Callable[[pytest.MonkeyPatch], None],
    caught_by: type[SecateurError],
    said: str,
    cut: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sabotage(monkeypatch)
    if sabotage is another_pre_tokenizer:
        with pytest.raises(ExportMismatch, match=said):
            GgufFiles().require_possible(cut, own_artifact=False)
    with pytest.raises(caught_by, match=said):
        export(cut, "Q8_0")
    assert not list(cut.glob("*Q8_0*")), "no other type follows"


def test_whatever_ends_llama_cpp_fails_the_export_alone(tmp_path: Path) -> None:
    file = tmp_path / "model-F16.gguf"
    file.write_bytes(b"GGUF" + bytes(60))
    with running_llama_cpp(largest_file=64, tokens=1, threads=1) as llama_cpp:
        with pytest.raises(ExportFailed, match=r"does not load model-F16\.gguf"):
            llama_cpp.open(file, 8)
        (child,) = (
            each for each in psutil.Process().children() if "core.engine.exporters.gguf.llama_cpp" in each.cmdline()
        )
        child.kill()
        with pytest.raises(ExportFailed, match="ended with code -9"):
            llama_cpp.token_ids(["a"])


def test_llama_cpp_is_ended_when_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "SECONDS", 0.0)
    with (
        pytest.raises(ExportFailed, match="took longer than the 0 s"),
        running_llama_cpp(largest_file=0, tokens=1, threads=1) as llama_cpp,
    ):
        llama_cpp.token_ids(["a"])


def test_what_the_worker_or_the_model_s_files_lack_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save_trained(tmp_path / "good", **CUT)
    GgufFiles().require_possible(good, own_artifact=False)
    with pytest.raises(InvalidRequest, match="tokenizer is of kind 'WordLevel'"):
        GgufFiles().require_possible(write_model(tmp_path / "words"), own_artifact=False)
    config = json.loads((good / "config.json").read_bytes())
    for change, said in (
        ({"hidden_act": "gelu"}, "activations of 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "scaled by 'yarn'"),
    ):
        (good / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InvalidRequest, match=said):
            GgufFiles().require_possible(good, own_artifact=False)
    monkeypatch.setattr(runtime, "LIBRARY", "no_such_library")
    with pytest.raises(InvalidRequest, match=r"pip install 'secateur-server\[gguf\]'"):
        GgufFiles().require_possible(good, own_artifact=False)


@pytest.mark.parametrize(
    ("family", "types", "said"),
    [
        ("qwen2", ["F16"], "not of Qwen2ForCausalLM"),
        ("llama", ["F16", "Q4_K_M"], "blocks of 256.* use F16"),
        ("llama", ["F16", "F16"], "has one twice"),
    ],
)
def test_what_the_headers_show_is_refused_before_a_job_is_queued(
    family: str, types: list[str], said: str, tmp_path: Path
) -> None:
    description = describe_folder(make_model(tmp_path / "model", family))
    output = Output.model_validate({"exports": [{"format": "gguf", "types": types}]})
    with pytest.raises(InvalidRequest, match=said) as refused:
        resolve_output(output, description, "unstructured")
    assert refused.value.param == "output.exports.0.types"


def test_a_form_is_named_once(tmp_path: Path) -> None:
    gguf = {"format": "gguf", "types": ["F16"]}
    with pytest.raises(InvalidRequest, match="'gguf' is named twice"):
        resolve_output(
            Output.model_validate({"exports": [gguf, gguf]}),
            describe_folder(write_llama(tmp_path / "m")),
            "unstructured",
        )


def test_the_request_offers_what_the_registry_has_and_shows_nothing_where_nothing_was_asked() -> None:
    definitions = JobBody.model_json_schema()["$defs"]
    assert (
        definitions["Export"]["properties"]["format"]
        == {"const": "gguf"} | definitions["Export"]["properties"]["format"]
    )
    assert definitions["Export"]["properties"]["types"]["items"]["enum"] == ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]
    assert "exports" not in Output().model_dump(mode="json")
