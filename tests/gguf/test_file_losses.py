"""Losses of files in their engines: those of stock transformers on the same windows, a few tokens at a time."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.engine.datasets.counted_tokens import plain_ids
from core.engine.datasets.token_windows import EvaluationSet
from core.engine.datasets.window_losses import WindowLosses, WindowSpans
from core.engine.exporters import engine_files, file_losses
from core.engine.exporters.file_losses import chosen_windows
from core.engine.exporters.implementations import added_exporter
from core.engine.models.folder import open_model
from tests.gguf.cells import export
from tests.gguf.trained import LINES, save_trained
from tests.graphs.cells import export as export_graph

WINDOWS, LENGTH = 6, 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_trained(tmp_path_factory.mktemp("file-losses") / "model")


@pytest.fixture(scope="module")
def windows(folder: Path) -> Tensor:
    """Windows of tokens, of which some of the third do not count."""
    ids = torch.tensor(AutoTokenizer.from_pretrained(folder)("\n".join(LINES))["input_ids"])
    windows_NT = ids[: WINDOWS * LENGTH].view(WINDOWS, LENGTH).clone()
    windows_NT[2, 10:20] = ~windows_NT[2, 10:20]
    return windows_NT


def losses_of(folder: Path, form: str, file: str, kind: str, **texts: EvaluationSet) -> dict[str, WindowLosses]:
    exporter = added_exporter(form)
    files = {kind: folder / file}
    return exporter.measure_losses(open_model(folder), files, texts, threads=1, log=lambda line: None)[kind]


@pytest.mark.parametrize("form", ["gguf", pytest.param("openvino", marks=pytest.mark.nightly)])
def test_losses_are_those_of_transformers_however_many_tokens_are_computed_at_a_time(
    form: str, folder: Path, windows: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = export(folder, "F32") if form == "gguf" else export_graph(folder, form, ["F32"])
    file = exported.files[0].file
    spans = WindowSpans([(1, LENGTH)] * (WINDOWS - 1) + [(5, 20)], [LENGTH - 1] * WINDOWS)
    texts = {"all": EvaluationSet(windows, None), "spans": EvaluationSet(windows, None, spans)}
    with torch.inference_mode():
        logits_NTV = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(plain_ids(windows)).logits
    losses_NT = functional.cross_entropy(logits_NTV[:, :-1].mT, plain_ids(windows)[:, 1:], reduction="none")
    counted_NT = windows[:, 1:] >= 0
    expected_N = (losses_NT * counted_NT).sum(1) / (counted_NT.sum() / WINDOWS)
    measured = losses_of(folder, form, file, "F32", **texts)
    assert measured["all"].losses == pytest.approx(expected_N.tolist(), abs=1e-3) and measured["all"].windows is None
    assert measured["spans"].losses[-1] == pytest.approx(float(losses_NT[-1, 4:19].sum()) / (LENGTH - 1), abs=1e-3)

    for module in (file_losses, engine_files):
        monkeypatch.setattr(module, "WINDOW", 16)
    monkeypatch.setattr(file_losses, "MEASURED_TOKENS", 3 * LENGTH + 1)
    fewer = losses_of(folder, form, file, "F32", **texts)["all"]
    assert fewer.windows == chosen_windows(texts["all"]) == (0, 2, 4)
    assert fewer.losses == pytest.approx([measured["all"].losses[number] for number in fewer.windows], abs=1e-4)
    assert fewer.by_window.keys() == {0, 2, 4}
