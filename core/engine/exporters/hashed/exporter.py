"""Exporter of weights shared by a hash (HashedNets, Chen et al. 2015, arXiv:1504.04788)."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel
from torch import nn

from core.engine.architectures.layer_shape import LinearShape
from core.engine.exporters.hashed.classifier import share_linears
from core.engine.exporters.hashed.files import hash_folder
from core.engine.exporters.hashed.sharing import HashSharing
from core.engine.exporters.protocols import ClassifierPreparation, FolderExporter
from core.engine.models.classifier import ClassifierFolder
from secateur_wire.base import JsonObject


class _Layer(BaseModel):
    tensor: str
    seed: int
    buckets: int


class _Section(BaseModel):
    layers: list[_Layer]


class WeightSharing(ClassifierPreparation, FolderExporter):
    """Weights of linear layers made to share values, of which the files keep each once."""

    def prepare(
        self,
        model: nn.Module,
        layers: Sequence[LinearShape],
        folder: ClassifierFolder,
        *,
        compression: float | None,
        seed: int,
    ) -> JsonObject:
        assert compression is not None, "checked outputs have one"
        shared = share_linears(model, layers, folder, compression=compression, seed=seed)
        return {"compression": compression, "layers": shared}

    def export(self, folder: Path, section: JsonObject) -> JsonObject:
        layers = _Section.model_validate(section).layers
        return hash_folder(folder, {each.tensor: HashSharing(each.seed, each.buckets) for each in layers})
