"""Protocols of exporters: what writes a form from a finished folder, or from a classifier in memory."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.engine.architectures.layer_shape import LinearShape
from secateur_wire.base import JsonObject

if TYPE_CHECKING:  # a finished folder is exported without torch, which takes long to load
    from torch import nn

    from core.engine.models.classifier import ClassifierFolder


class FolderExporter(ABC):
    """Export of a model folder that is written and verified."""

    @abstractmethod
    def export(self, folder: Path, section: JsonObject) -> JsonObject:
        """Write the form into the folder; return its `bytes` and what else the report says of it.

        `section` is what the report says already, from a `ClassifierPreparation`.
        """


class ClassifierPreparation(ABC):
    """Change of a classifier's weights, in memory, to values that a form can hold."""

    @abstractmethod
    def prepare(
        self,
        model: "nn.Module",
        layers: Sequence[LinearShape],
        folder: "ClassifierFolder",
        *,
        compression: float | None,
        seed: int,
    ) -> JsonObject:
        """Change the weights of those layers in place; return what the report says of it.

        `folder` is what the model was loaded from: its dtypes are those of the files.
        """


class ClassifierExporter(ABC):
    """Export of a classifier in memory to a file beside its folder's own."""

    @abstractmethod
    def export(self, model: "nn.Module", image_shape: tuple[int, int, int], folder: Path) -> int:
        """Write the form of a model in evaluation mode into a folder; return its bytes.

        `image_shape` is channels, height and width.
        """
