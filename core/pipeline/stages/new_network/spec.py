"""Small classic network, untrained, as a model folder."""

from pathlib import Path
from typing import Literal

from core.engine.architectures.architecture import NetworkName
from core.pipeline.messages import Spec, TaskOutput


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
