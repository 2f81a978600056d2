"""Windows of tokens for all contenders, made once."""

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import calibration_windows, evaluation_windows, mixed_windows
from core.engine.models.folder import open_model
from core.engine.models.tensors import write_tensors


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
