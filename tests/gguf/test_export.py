"""GGUF files of artifacts, run in the real llama.cpp: right ones pass the gate, and mistakes of a writer are caught."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import psutil
import pytest
from gguf import GGUFReader, GGUFWriter
from safetensors.numpy import load_file

from core.engine.architectures.describe import describe_folder
from core.engine.exporters import engine, exporter_info
from core.engine.exporters.engine import running
from core.engine.exporters.gguf import exporter
from core.engine.exporters.gguf.exporter import GgufFiles
from core.engine.exporters.gguf.info import INFO
from core.engine.exporters.gguf.runtime import LlamaCpp
from core.engine.exporters.gguf.settings import GgufSettings, read_settings
from core.engine.models.folder import ModelFolder, open_model
from core.methods.registry import parse_parameters
from core.pipeline.recipes.outputs import resolve_output
from core.pipeline.recipes.recipe import Output
from core.pipeline.recipes.request import ResolvedRequest
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.sources_spec import ImportGgufSpec
from core.progress import Progress
from secateur.engines.choice import KINDS
from secateur_wire.errors import ExportFailed, ExportMismatch, InvalidRequest
from tests.engine.tiny import make_model
from tests.gguf.cells import cut_trained, export
from tests.gguf.trained import save_trained
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

_ZEROS = ResolvedRequest("magnitude", "unstructured", 0.5, parse_parameters("magnitude", {}))


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    return save_trained(tmp_path / "cut", **CUT)


def test_files_of_all_types_predict_what_a_cut_model_does_and_none_else_is_left(cut: Path, tmp_path: Path) -> None:
    exported = export(cut, "F32", "Q8_0", "Q4_K_M")
    most = {"F32": 1e-9, "Q8_0": 1e-2, "Q4_K_M": 1e-1}
    assert [each.type for each in exported.files] == list(most)
    for each in exported.files:
        assert each.kl is not None and -1e-12 < each.kl < most[each.type]
        assert each.predictions is not None and each.predictions >= 2000
        assert each.bytes == (cut / each.file).stat().st_size
    tensors = GGUFReader(cut / "model-Q8_0.gguf").tensors
    assert INFO.dense_sizes(open_model(cut).description)["Q8_0"] == sum(each.n_bytes for each in tensors)
    assert {file.name for file in cut.glob("*.gguf*")} == {each.file for each in exported.files}
    run_stage(ImportGgufSpec(source=cut / "model-F32.gguf", target=tmp_path / "back"), Progress(), lambda: 0)
    before, after = (load_file(folder / "model.safetensors") for folder in (cut, tmp_path / "back"))
    assert before.keys() == after.keys() and all(numpy.array_equal(before[name], after[name]) for name in before)
    others = [set().union(*each.other_types.values()) for each in exported.files]
    dense = open_model(save_trained(tmp_path / "dense", intermediate_size=512))
    files = {"Q4_K_M": cut / "model-Q4_K_M.gguf"}
    (speed,) = GgufFiles().measure_speeds(dense, files, tmp_path, threads=1, log=lambda text: None).values()
    assert not list(tmp_path.glob("dense-*")) and speed.rounds >= 3
    assert (speed.prompt_tokens, speed.decoded_tokens) == (96, 32), "what its context has room for"
    assert others[:2] == [set(), set()] and "blk.*.attn_q.weight" in others[2] and "model-Q4_K_M" in exported.notes[0]


def test_a_window_that_llama_cpp_does_not_have_is_the_context_of_the_file(tmp_path: Path) -> None:
    folder = save_trained(tmp_path, "mistral", sliding_window=48)
    exported = export(folder, "F16")
    context = GGUFReader(folder / "model-F16.gguf").get_field("llama.context_length")
    assert context is not None and context.contents() == 48 and "the last 48" in exported.notes[0]
    engine = KINDS[0].open(folder / "model-F16.gguf")
    assert engine.context == 48 and 0 < engine.length([{"role": "user", "content": "the quick"}]) < 48


def test_rotary_embeddings_are_scaled_as_llama_3_has_it(cut: Path) -> None:
    config = json.loads((cut / "config.json").read_bytes())
    factors = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    config["rope_parameters"] |= {"rope_type": "llama3"} | factors
    (cut / "config.json").write_text(json.dumps(config))
    (exported,) = export(cut, "F16").files
    assert exported.kl is not None and exported.kl < 1e-6


def test_whatever_ends_llama_cpp_fails_the_export_alone(tmp_path: Path) -> None:
    file = tmp_path / "model-F16.gguf"
    file.write_bytes(b"GGUF" + bytes(60))
    with running(LlamaCpp, largest_file=64, tokens=1, threads=1) as llama_cpp:
        with pytest.raises(ExportFailed, match=r"does not load model-F16\.gguf"):
            llama_cpp.open(file, 8)
        (child,) = (
            each
            for each in psutil.Process().children()
            if each.status() != psutil.STATUS_ZOMBIE and "core.engine.exporters.gguf.llama_cpp" in each.cmdline()
        )
        child.kill()
        with pytest.raises(ExportFailed, match="ended with code -9"):
            llama_cpp.token_ids(["a"])


def test_llama_cpp_is_ended_when_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SECONDS", 0.0)
    with (
        pytest.raises(ExportFailed, match="took longer than the 0 s") as late,
        running(LlamaCpp, largest_file=0, tokens=1, threads=1) as llama_cpp,
    ):
        llama_cpp.token_ids(["a"])
    assert late.value.retryable, "another attempt may find the worker less busy"


def test_what_the_worker_or_the_model_s_files_lack_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save_trained(tmp_path / "good", **CUT)
    GgufFiles().require_possible(open_model(good))
    with pytest.raises(InvalidRequest, match="tokenizer is of kind 'WordLevel'"):
        GgufFiles().require_possible(open_model(write_model(tmp_path / "words")))
    monkeypatch.setattr(exporter_info, "find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match=r"no llama\.cpp, .*pip install .*whl\[gguf\]'"):
        GgufFiles().require_possible(open_model(good))


@pytest.mark.parametrize(
    ("family", "types", "said"),
    [
        ("opt", ["F16"], "not for OPTForCausalLM"),
        ("llama", ["F16", "Q4_K_M"], "blocks of 256.* use F16"),
    ],
)
def test_what_the_headers_show_is_refused_before_a_job_is_queued(
    family: str, types: list[str], said: str, tmp_path: Path
) -> None:
    description = describe_folder(make_model(tmp_path / "model", family))
    output = Output.model_validate({"exports": [{"format": "gguf", "types": types}]})
    with pytest.raises(InvalidRequest, match=said) as refused:
        resolve_output(output, description, _ZEROS)
    assert refused.value.param == "output.exports.0.types"


Mistake = Callable[[pytest.MonkeyPatch], None]


def _other_row_order(patch: pytest.MonkeyPatch) -> None:
    def wrong(folder: ModelFolder) -> GgufSettings:
        right = read_settings(folder)
        return replace(right, form=replace(right.form, rotates_neighbours=not right.form.rotates_neighbours))

    patch.setattr(exporter, "read_settings", wrong)


def _no_head_size(patch: pytest.MonkeyPatch) -> None:
    def wrong(folder: ModelFolder) -> GgufSettings:
        right = read_settings(folder)
        left_out = ("attention.key_length", "attention.value_length", "rope.dimension_count")
        return replace(right, keys={key: each for key, each in right.keys.items() if key not in left_out})

    patch.setattr(exporter, "read_settings", wrong)


def _other_pre_tokenizer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        GGUFWriter, "add_tokenizer_pre", lambda self, name: self.add_string("tokenizer.ggml.pre", "deepseek-coder")
    )


@pytest.mark.parametrize(
    ("mistake", "way", "error", "said"),
    [
        (_other_row_order, "uncut", ExportMismatch, r"mean KL divergence is \S+ nats"),
        (_no_head_size, "heads", ExportFailed, r"does not load model-F16\.gguf"),
        (_other_pre_tokenizer, "uncut", ExportMismatch, "the artifact's tokenizer as"),
    ],
)
def test_a_mistake_of_the_writer_is_caught_in_llama_cpp(
    mistake: Mistake, way: str, error: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cut_trained(tmp_path, "llama", way)
    mistake(monkeypatch)
    with pytest.raises(error, match=said):
        export(folder, "Q8_0")
    assert not list(folder.glob("*Q8_0*")), "no other type follows"
    if mistake is _other_pre_tokenizer:
        with pytest.raises(ExportMismatch, match=said):
            GgufFiles().require_possible(open_model(folder, own_artifact=True))
