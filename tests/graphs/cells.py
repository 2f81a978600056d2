"""Cells of the matrix of graphs: a small trained model of each family, cut in some ways, in each engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from transformers import AutoTokenizer

from core.engine.exporters.implementations import added_exporter
from core.engine.exporters.onnx.info import INFO as ONNX
from core.engine.exporters.openvino.info import INFO as OPENVINO
from core.engine.exporters.protocols import AddedForm
from core.engine.models.folder import open_model
from tests.gguf.cells import cut_trained
from tests.gguf.trained import LINES, STEPS

FORMS: Final = {each.id: each for each in (ONNX, OPENVINO)}
WAYS: Final = ("uncut", "heads", "layers", "per_layer")


def cut(place: Path, family: str, way: str, form: str) -> Path:
    """Save a trained model as a job leaves it, with the tokenizer's file as transformers reads it.

    Classes of some families split texts by themselves, whatever the file of a small test's tokenizer says.
    """
    folder = cut_trained(place, family, way, info=FORMS[form], training_steps=STEPS)
    AutoTokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(folder)
    return folder


def export(folder: Path, form: str, types: Sequence[str] | None = None) -> AddedForm:
    return added_exporter(form).export(
        open_model(folder, own_artifact=True),
        types or FORMS[form].types,
        LINES,
        name="small",
        device=torch.device("cpu"),
        threads=1,
        log=lambda text: None,
    )
