"""Import of a GGUF file as a safetensors model folder."""

from pathlib import Path
from typing import Literal

from core.pipeline.messages import Spec, TaskOutput


class ImportGgufSpec(Spec):
    """Spec of dequantising a GGUF file into a safetensors model folder."""

    task: Literal["import_gguf"] = "import_gguf"
    source: Path
    target: Path


class ImportedModelOutput(TaskOutput):
    """Model folder that was converted from another format."""

    parameters: int
    architecture: str
