"""Protocols of exporters: for a finished folder, for a classifier in memory, and for forms added to an artifact."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.engine.architectures.structure import LinearShape
from core.engine.datasets.window_losses import WindowLosses
from secateur_wire.base import JsonObject
from secateur_wire.metrics import ExportedFile, ExportSpeed, FileSpeed

if TYPE_CHECKING:  # a finished folder is exported without torch, which takes long to load
    import torch
    from torch import nn

    from core.engine.datasets.token_windows import EvaluationSet
    from core.engine.models.classifier import ClassifierFolder
    from core.engine.models.folder import ModelFolder


class FolderExporter(ABC):
    """Export of a model folder that is written and verified."""

    @abstractmethod
    def export(self, folder: Path, section: JsonObject) -> JsonObject:
        """Write the form into the folder; return its `bytes` and other facts for the report.

        `section` is the report's section so far, from a `ClassifierPreparation`.
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
        """Change the weights of those layers in place; return the section of the report.

        The model was loaded from `folder`, whose files have the stored dtypes.
        """


class ClassifierExporter(ABC):
    """Export of a classifier in memory to a file beside its folder's own."""

    @abstractmethod
    def export(self, model: "nn.Module", image_shape: tuple[int, int, int], folder: Path) -> int:
        """Write the form of a model in evaluation mode into a folder; return its bytes.

        `image_shape` is channels, height and width.
        """


@dataclass(frozen=True)
class Importance:
    """Importance of the inputs of a model's linear layers: the mean of x² of each, [in_features], by the layer's name.

    The mean is over `tokens` tokens of the `text` of this name.
    """

    mean_squares: "Mapping[str, torch.Tensor]"
    tokens: int
    text: str


@dataclass(frozen=True)
class AddedForm:
    """Files of a form that was added to an artifact, the runtime that ran them, and notes for users."""

    files: list[ExportedFile]
    runtime: str
    notes: list[str]


class AddedExporter(ABC):
    """Export of a verified language model to further files, each run before it is kept."""

    @abstractmethod
    def require_possible(self, folder: "ModelFolder") -> None:
        """Require that this machine can write the form for the model in a folder; takes seconds.

        Raises InvalidRequest, or what the export would raise.
        """

    def reads_importance(self, folder: "ModelFolder", types: Sequence[str]) -> bool:
        """Return True if files of a model, of one of the types, are rounded by the importance of inputs."""
        return False

    @abstractmethod
    def export(
        self,
        folder: "ModelFolder",
        types: Sequence[str],
        documents: Iterable[str],
        *,
        name: str,
        device: "torch.device",
        threads: int | None,
        log: Callable[[str], None],
        importance: Importance | None = None,
    ) -> AddedForm:
        """Write a file of each type into the folder; predictions are compared on the documents.

        `name` is the model's name in the files. Raises ExportFailed or ExportMismatch.
        """

    @abstractmethod
    def measure_losses(
        self,
        folder: "ModelFolder",
        files: Mapping[str, Path],
        texts: Mapping[str, "EvaluationSet"],
        *,
        threads: int | None,
        log: Callable[[str], None],
    ) -> dict[str, dict[str, WindowLosses]]:
        """Return the losses of the files of a model, given by type, on each evaluation set that they can read.

        Raises ExportFailed.
        """

    @abstractmethod
    def measure_speeds(
        self,
        dense: "ModelFolder",
        files: Mapping[str, Path],
        place: Path,
        *,
        threads: int | None,
        log: Callable[[str], None],
    ) -> dict[str, ExportSpeed]:
        """Return the speed of the files, given by type, against the dense model in its folder; takes minutes at most.

        `place` is a folder with room for files of the dense model. Raises ExportFailed.
        """

    @abstractmethod
    def measure_own_speeds(
        self,
        dense: "ModelFolder",
        files: Mapping[str, Path],
        *,
        threads: int | None,
        log: Callable[[str], None],
    ) -> dict[str, FileSpeed]:
        """Return the speed of files of the dense model, given by type, by themselves; takes minutes at most.

        Raises ExportFailed.
        """
