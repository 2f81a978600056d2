"""Windows of tokens for all contenders, and text that the sample model writes itself, each made once."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import calibration_windows, evaluation_windows, mixed_windows
from core.engine.models.folder import open_model
from core.engine.models.loading import load_model
from core.engine.models.own_text import DocumentWriter, sequences_at_once
from core.engine.models.precision import writing_dtype
from core.engine.models.tensors import DTYPES, write_tensors


def make_windows(spec: dict[str, Any]) -> dict[str, Any]:
    """Write `tokens` [samples, length] of the spec's `text` into `output`, for calibration or evaluation; of what the
    model wrote, so many more as are `generated`.
    """
    tokenizer = open_model(Path(spec["model"])).tokenizer()
    text = Path(spec["text"])
    documents = read_documents(text, detect_format(text))
    size = {"samples": spec["samples"], "length": spec["length"]}
    if spec["use"] == "calibration":
        tokens = calibration_windows(documents, tokenizer, **size, seed=spec["seed"], name=text.name)
        if spec["generated"]:
            tokens = mixed_windows([tokens, _generated(spec, tokenizer)], spec["seed"])
    else:
        tokens = evaluation_windows(documents, tokenizer, **size, name=text.name)
    write_tensors(Path(spec["output"]), {"tokens": tokens})
    return {}


def _generated(spec: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Tensor:
    file = Path(spec["generated_text"])
    return calibration_windows(
        read_documents(file, detect_format(file)),
        tokenizer,
        samples=spec["generated"],
        length=spec["length"],
        seed=spec["seed"],
        name=file.name,
    )


def write_text(spec: dict[str, Any]) -> dict[str, Any]:
    """Write `samples` × `length` tokens of the spec's model into `output`, JSON lines; the seconds of it."""
    folder = open_model(Path(spec["model"]))
    device = torch.device("cpu")
    dtype = writing_dtype(DTYPES[folder.description.dtype], device)
    begun = time.perf_counter()
    model = load_model(folder, device, dtype=dtype)
    writer = DocumentWriter(model, folder.tokenizer(), length=spec["length"], seed=0)
    documents = writer.write(
        tokens=spec["samples"] * spec["length"],
        at_once=sequences_at_once(folder.description, spec["length"], device, dtype),
    )
    with Path(spec["output"]).open("w") as target:
        target.writelines(json.dumps({"text": document}) + "\n" for document in documents)
    return {"seconds": time.perf_counter() - begun}
