"""Graphs as forms of an artifact: what is timed, and what is refused before anything is pruned."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from core.engine.architectures.describe import describe_folder
from core.engine.exporters import exporter_info
from core.engine.exporters.implementations import added_exporter
from core.engine.models.folder import open_model
from core.methods.registry import parse_parameters
from core.pipeline.recipes.outputs import resolve_output
from core.pipeline.recipes.parts import Output
from core.pipeline.recipes.request import ResolvedRequest
from secateur_wire.errors import ExportFailed, InvalidRequest
from secateur_wire.job_body import Quantization
from tests.engine.tiny import make_model
from tests.gguf.cells import quantised
from tests.gguf.trained import save_trained
from tests.graphs.cells import FORMS, export

_ZEROS = ResolvedRequest("magnitude", "unstructured", 0.5, parse_parameters("magnitude", {}))


@pytest.mark.nightly  # two traces; a job of the suite times one of OpenVINO
def test_files_of_a_quantised_artifact_are_timed_beside_the_dense_model_s_which_are_removed(tmp_path: Path) -> None:
    folder, dense = quantised(tmp_path, Quantization(scheme="int8", rounding="nearest")), open_model(tmp_path / "model")
    (file,) = export(folder, "onnx", ["F32"]).files
    files = {"F32": folder / file.file}
    exporter = added_exporter("onnx")
    (speed,) = exporter.measure_speeds(dense, files, tmp_path, threads=1, log=lambda text: None).values()
    assert not list(tmp_path.glob("dense-*")) and speed.dense_bytes > 0.9 * file.bytes and speed.rounds >= 3
    assert all(rate > 0 for each in (speed.prefill, speed.decode) for rate in (each.dense, each.pruned))
    (own,) = exporter.measure_own_speeds(dense, files, threads=1, log=lambda text: None).values()
    assert own.prefill > 0 and own.decode > 0 and (own.prompt_tokens, own.decoded_tokens) == (96, 32)
    files["F32"].write_bytes(b"no graph")
    with pytest.raises(ExportFailed, match=r"ONNX Runtime does not run onnx-F32\.onnx"):
        exporter.measure_own_speeds(dense, files, threads=1, log=lambda text: None)


@pytest.mark.parametrize("form", FORMS)
def test_what_the_worker_or_the_model_s_files_lack_is_refused(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, good = added_exporter(form), save_trained(tmp_path / "good")
    exporter.require_possible(open_model(good))
    other = save_trained(tmp_path / "other")
    settings = json.loads((other / "tokenizer_config.json").read_bytes()) | {"tokenizer_class": "GPT2Tokenizer"}
    (other / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InvalidRequest, match=r"reads .* otherwise than its tokenizer\.json does"):
        exporter.require_possible(open_model(other))
    monkeypatch.setattr(
        exporter_info, "find_spec", lambda name: None if name == FORMS[form].packages[-1] else find_spec(name)
    )
    with pytest.raises(InvalidRequest, match=rf"pip install .*whl\[{FORMS[form].runtime.extra}\]'"):
        exporter.require_possible(open_model(good))


@pytest.mark.parametrize("form", FORMS)
def test_a_type_of_another_form_is_refused_before_a_job_is_queued(form: str, tmp_path: Path) -> None:
    description = describe_folder(make_model(tmp_path / "model", "llama"))
    output = Output.model_validate({"exports": [{"format": form, "types": ["Q8_0"]}]})
    with pytest.raises(InvalidRequest, match=f"Q8_0 is no type of {form}"):
        resolve_output(output, description, _ZEROS)
