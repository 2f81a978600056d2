"""Text the sample model writes itself, made once for all cells that calibrate on some."""

import json
import time
from pathlib import Path
from typing import Any

import torch

from core.engine.models.folder import open_model
from core.engine.models.loading import load_model
from core.engine.models.precision import forward_dtype
from core.engine.models.self_text import generate_documents, sequences_at_once
from core.engine.models.tensors import DTYPES


def write_text(spec: dict[str, Any]) -> dict[str, Any]:
    """Write `samples` × `length` tokens of the spec's model into `output`, JSON lines; the seconds of it."""
    folder = open_model(Path(spec["model"]))
    device = torch.device("cpu")
    begun = time.perf_counter()
    documents = generate_documents(
        load_model(folder, device, dtype=forward_dtype("auto", DTYPES[folder.description.dtype], device)),
        folder.tokenizer(),
        tokens=spec["samples"] * spec["length"],
        length=spec["length"],
        seed=0,
        at_once=sequences_at_once(folder.description, spec["length"], device),
    )
    with Path(spec["output"]).open("w") as target:
        target.writelines(json.dumps({"text": document}) + "\n" for document in documents)
    return {"seconds": time.perf_counter() - begun}
