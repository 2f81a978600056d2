"""Mistakes of the writer are caught in the real llama.cpp: one for each way of being caught."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGUFWriter

from core.engine.exporters.gguf import exporter, writer
from core.engine.exporters.gguf.exporter import GgufFiles
from core.engine.exporters.gguf.settings import GgufSettings, read_settings
from core.engine.exporters.gguf.tensors import PlacedTensor, read_placed
from core.engine.models.folder import ModelFolder, open_model
from secateur_wire.errors import ExportFailed, ExportMismatch
from tests.gguf.cells import cut_mixture, cut_trained, export, export_opened

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


def test_a_router_in_another_order_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cut_mixture(tmp_path, "mixtral", "uncut")

    def wrong(tensor: PlacedTensor, settings: GgufSettings) -> object:
        right = read_placed(tensor, settings)
        return right[[*range(1, len(right)), 0]] if tensor.module == "ffn_gate_inp" else right

    monkeypatch.setattr(writer, "read_placed", wrong)
    with pytest.raises(ExportMismatch, match="mean KL divergence"):
        export_opened(folder, "F16")
