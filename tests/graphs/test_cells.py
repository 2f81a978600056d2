"""Graphs in ONNX Runtime and OpenVINO: exact in float32, also where layers differ, and decoded; mistakes are caught.

Cells are of the night: in every run a job has a graph whose layers differ, a mistake is caught, and graphs chat.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicLayer, PreTrainedModel

from core.engine.exporters import exporter_info, graph_files
from core.engine.exporters.implementations import added_exporter
from core.engine.models.folder import ModelFolder, open_model
from core.methods.registry import parse_parameters
from core.pipeline.recipes.request import ResolvedRequest
from secateur_wire.errors import ExportMismatch, InvalidRequest
from tests.gguf.cells import cut_mixture, nightly_but
from tests.gguf.trained import FAMILIES, LINES, MIXTURES, OTHERS, save_trained
from tests.graphs.cells import FORMS, WAYS, cut, export


@pytest.mark.parametrize(
    ("family", "way", "form"),
    nightly_but([(family, way, form) for family in (*FAMILIES, *OTHERS) for way in WAYS for form in FORMS], []),
)
def test_a_cell_is_exact_in_its_engine(family: str, way: str, form: str, tmp_path: Path) -> None:
    folder = cut(tmp_path, family, way, form)
    exported = {each.type: each for each in export(folder, form).files}
    exact = exported["F32"]
    assert exact.kl is not None and exact.kl < 1e-8 and exact.decoded_kl is not None and exact.decoded_kl < 1e-8
    assert exact.predictions is not None and exact.predictions >= 2000 and exact.perplexity is not None
    for each in exported.values():
        names = [each.file, *each.needs]
        assert all((folder / name).is_file() for name in names) and "tokenizer.json" in names
    assert not list(folder.glob("*.partial"))
    if form == "openvino":
        assert exported["INT8"].bytes < exported["F16"].bytes < exact.bytes
        assert exported["INT8"].kl is not None and exact.kl < exported["INT8"].kl < 1e-2


@pytest.mark.parametrize(
    ("family", "way", "form"),
    nightly_but(
        [(family, way, form) for family in MIXTURES for way in ("uncut", "experts", "per_layer") for form in FORMS], []
    ),
)
def test_a_mixture_is_exact_in_its_engine(family: str, way: str, form: str, tmp_path: Path) -> None:
    folder = cut_mixture(tmp_path, family, way, info=FORMS[form])
    (exact,) = (
        added_exporter(form)
        .export(folder, ["F32"], LINES, name="small", device=torch.device("cpu"), threads=1, log=lambda text: None)
        .files
    )
    assert exact.kl is not None and exact.kl < 1e-8 and exact.decoded_kl is not None and exact.decoded_kl < 1e-8


def _keep_the_cache(patch: pytest.MonkeyPatch) -> None:
    """Attend to new keys and values, and give back those that were there before: a prompt alone does not show it."""
    update = DynamicLayer.update

    def stale(self: Any, keys: torch.Tensor, values: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if not self.is_initialized or not self.keys.shape[2]:
            return update(self, keys, values, *rest, **named)
        before = self.keys, self.values
        joined = update(self, keys, values, *rest, **named)
        self.keys, self.values = before
        return joined

    patch.setattr(DynamicLayer, "update", stale)


def test_a_mistake_in_a_graph_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_trained(tmp_path / "model", tie_word_embeddings=False)
    decoder_of = graph_files.decoder_of

    def wrong(folder: ModelFolder) -> PreTrainedModel:
        model = decoder_of(folder)
        _keep_the_cache(monkeypatch)
        return model

    monkeypatch.setattr(graph_files, "decoder_of", wrong)
    with pytest.raises(ExportMismatch, match=r"mean KL divergence.*(of decoded tokens|is allowed)"):
        export(folder, "openvino", ["INT8"])


_ZEROS = ResolvedRequest("magnitude", "unstructured", 0.5, parse_parameters("magnitude", {}))


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
