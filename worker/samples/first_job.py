"""First job of a new user: the demo runs it, and so does the request for the samples that names the goal `speed`."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from core.engine.exporters.registry import ADDED
from secateur_wire.job_body import JobFields
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

AMOUNT: Final = 0.075
"""Share of the parameters to remove: the best bargain of those measured in docs/structured.md."""
PROMPT: Final = "The capital of France is"
_FORM: Final = "gguf"
_TEXT: Final[dict[str, Any]] = {"samples": 32, "sequence_length": 512}


def first_job() -> JobFields:
    """Return the body of the first job: whole layers go, the rest is refitted, and weights are stored in bfloat16.

    A GGUF file is added where llama.cpp, which checks it, is installed.
    """
    output: dict[str, Any] = {"dtype": "bfloat16"}
    example = ADDED[_FORM].example
    if example is not None and all(map(_is_installed, example.packages)):
        output["exports"] = [{"format": _FORM, "types": ["Q8_0"]}]
    return {
        "model": MODEL,
        "method": "depth",
        "sparsity": AMOUNT,
        "parameters": {"criterion": "block_influence", "compensation": {"refit": 0.5}},
        "calibration": {"dataset": CALIBRATION, "seed": 0} | _TEXT,
        "evaluation": {"datasets": [EVALUATION], "prompts": [PROMPT]} | _TEXT,
        "output": output,
    }


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
