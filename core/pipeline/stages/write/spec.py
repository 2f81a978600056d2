"""Text that a model writes and that jobs calibrate or train on."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.pipeline.messages import DeviceSpec, ModelPlace, Spec, TaskOutput


class WriteSpec(DeviceSpec, Spec):
    """Spec of text that the model writes itself, enough for `samples` windows of `sequence_length` tokens.

    `revision` is the model's. Finished batches are saved in `work`, and an attempt goes on after the last one that it
    finds there or in a folder of `previous`, the newest first.
    """

    task: Literal["write"] = "write"
    model: ModelPlace
    revision: str = ""
    target: Path
    samples: int
    sequence_length: int
    seed: int
    work: Path
    previous: list[Path] = Field(default_factory=list)


class WrittenOutput(TaskOutput):
    """Text that a model wrote to calibrate on."""

    documents: int
    characters: int
    tokens: int
