"""Tasks that make what a job or a registration reads: text that a model writes, imported and new models."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.engine.architectures.architecture import NetworkName
from core.engine.datasets.chat.conversations import Frame
from core.pipeline.messages import DeviceSpec, ModelPlace, Spec, TaskOutput
from secateur_wire.datasets import LeftOut


class ChatShape(BaseModel):
    """Shape of conversations: the words of the model's chat template around a question and its answer.

    `questions` is a file of rendered questions to answer; None: the model asks them too. `template` is the hash of the
    template.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    frame: Frame
    template: str
    questions: Path | None = None


class WriteSpec(DeviceSpec, Spec):
    """Spec of text that the model writes itself, enough for `samples` windows of `sequence_length` tokens.

    `revision` is the model's. With a `chat` the text is conversations instead of running text. Finished batches are
    saved in `work`, and an attempt goes on after the last one that it finds there or in a folder of `previous`, the
    newest first.
    """

    task: Literal["write"] = "write"
    model: ModelPlace
    revision: str = ""
    target: Path
    samples: int
    sequence_length: int
    seed: int
    chat: ChatShape | None = None
    work: Path
    previous: list[Path] = Field(default_factory=list)


class WrittenOutput(TaskOutput):
    """Text that a model wrote to calibrate on; `left_out` are questions that it was not asked."""

    documents: int
    characters: int
    tokens: int
    left_out: list[LeftOut] = Field(default_factory=list)


class ImportGgufSpec(Spec):
    """Spec of dequantising a GGUF file into a safetensors model folder."""

    task: Literal["import_gguf"] = "import_gguf"
    source: Path
    target: Path


class ImportedModelOutput(TaskOutput):
    """Model folder that was converted from another format."""

    parameters: int
    architecture: str


class NewNetworkSpec(Spec):
    """Spec of writing a small classic network, untrained, as a model folder."""

    task: Literal["new_network"] = "new_network"
    network: NetworkName
    classes: int
    channels: int
    image_size: int
    hidden_sizes: list[int]
    seed: int
    target: Path


class NewNetworkOutput(TaskOutput):
    """Model folder that was created."""

    parameters: int
