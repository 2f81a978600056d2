"""Protocols of exporters: what writes a form from a finished folder, or from a classifier in memory, or beside both."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.engine.architectures.layer_shape import LinearShape
from secateur_wire.base import JsonObject
from secateur_wire.metrics import ExportedFile, ExportSpeed

if TYPE_CHECKING:  # a finished folder is exported without torch, which takes long to load
    import torch
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


@dataclass(frozen=True)
class AddedForm:
    """Files of a form that was added to an artifact, the runtime that ran them, and remarks for people."""

    files: list[ExportedFile]
    runtime: str
    notes: list[str]


class AddedExporter(ABC):
    """Export of a verified language model to files beside its own, each run before it is kept."""

    @abstractmethod
    def require_possible(self, folder: Path, *, own_artifact: bool) -> None:
        """Require that the form can be written here of the model in a folder; takes seconds.

        `own_artifact`: this service wrote the folder. Raises InvalidRequest, or what the export would raise.
        """

    @abstractmethod
    def export(
        self,
        folder: Path,
        types: Sequence[str],
        documents: Iterable[str],
        *,
        name: str,
        device: "torch.device",
        threads: int | None,
        log: Callable[[str], None],
    ) -> AddedForm:
        """Write a file of each type into the folder; predictions are compared on the documents.

        `name` is what the files call the model. Raises ExportFailed or ExportMismatch.
        """

    @abstractmethod
    def measure_speeds(
        self,
        dense: Path,
        files: Mapping[str, Path],
        place: Path,
        *,
        own_dense: bool,
        threads: int | None,
        log: Callable[[str], None],
    ) -> dict[str, ExportSpeed]:
        """Return the speed of the files, given by type, against the dense model in its folder; takes minutes at most.

        `place` is where there is room for files of the dense model, `own_dense`: this service wrote that. Raises
        ExportFailed.
        """
