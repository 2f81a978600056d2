"""Windows of tokens for both sides, made once."""

from pathlib import Path
from typing import Any

from bench.cell_program import answer
from core.data.texts import detect_format, read_documents
from core.data.tokens import calibration_windows, evaluation_windows
from core.models.folder import open_model
from core.models.weights import write_tensors


def make_windows(spec: dict[str, Any]) -> dict[str, Any]:
    """Write calibration.safetensors and evaluation.safetensors, `tokens` [samples, length], into `output`."""
    tokenizer = open_model(Path(spec["model"])).tokenizer()
    samples, length = spec["samples"], spec["length"]
    texts = {use: Path(spec[use]) for use in ("calibration", "evaluation")}
    documents = {use: read_documents(text, detect_format(text)) for use, text in texts.items()}
    windows = {
        "calibration": calibration_windows(
            documents["calibration"],
            tokenizer,
            samples=samples,
            length=length,
            seed=0,
            name=texts["calibration"].name,
        ),
        "evaluation": evaluation_windows(
            documents["evaluation"], tokenizer, samples=samples, length=length, name=texts["evaluation"].name
        ),
    }
    output = Path(spec["output"])
    output.mkdir(parents=True, exist_ok=True)
    for use, tokens in windows.items():
        write_tensors(output / f"{use}.safetensors", {"tokens": tokens})
    return {}


if __name__ == "__main__":
    answer(make_windows)
