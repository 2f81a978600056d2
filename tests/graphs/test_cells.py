"""Graphs in ONNX Runtime and OpenVINO: exact in float32, also where layers differ, and decoded; mistakes are caught.

Cells are of the night: in every run a job has a graph whose layers differ, a mistake is caught, and graphs chat.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicLayer, PreTrainedModel

from core.engine.exporters import graph_files
from core.engine.exporters.implementations import added_exporter
from core.engine.models.folder import ModelFolder
from secateur_wire.errors import ExportMismatch
from tests.gguf.cells import nightly_but
from tests.gguf.mixtures import cut_mixture
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


def _swap_projections(patch: pytest.MonkeyPatch, model: PreTrainedModel) -> None:
    for layer in model.model.layers:
        layer.mlp.gate_proj, layer.mlp.up_proj = layer.mlp.up_proj, layer.mlp.gate_proj


def _keep_the_cache(patch: pytest.MonkeyPatch, model: PreTrainedModel) -> None:
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


@pytest.mark.parametrize(
    ("mistake", "form", "kind", "said"),
    [
        (_keep_the_cache, "openvino", "INT8", "mean KL divergence.*(of decoded tokens|is allowed)"),
        pytest.param(_swap_projections, "onnx", "F32", "mean KL divergence", marks=pytest.mark.nightly),
    ],
)
def test_a_mistake_in_a_graph_is_caught(
    mistake: Any, form: str, kind: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_trained(tmp_path / "model", tie_word_embeddings=False)
    decoder_of = graph_files.decoder_of

    def wrong(folder: ModelFolder) -> PreTrainedModel:
        model = decoder_of(folder)
        mistake(monkeypatch, model)
        return model

    monkeypatch.setattr(graph_files, "decoder_of", wrong)
    with pytest.raises(ExportMismatch, match=said):
        export(folder, form, [kind])
