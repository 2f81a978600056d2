"""Text that a model writes and that jobs calibrate or train on."""

from pathlib import Path
from typing import Literal

from core.pipeline.messages import DeviceSpec, ModelPlace, Spec, TaskOutput


class GenerateTextSpec(DeviceSpec, Spec):
    """Spec of text that the model generates itself, enough for `samples` windows of `sequence_length` tokens."""

    task: Literal["generate_text"] = "generate_text"
    model: ModelPlace
    target: Path
    samples: int
    sequence_length: int
    seed: int


class GeneratedTextOutput(TaskOutput):
    """Text that a model wrote to calibrate on."""

    documents: int
    characters: int
    tokens: int
