"""Weights shared by a hash: their description."""

from core.engine.architectures.description import Description
from core.engine.cuts import Removal
from core.engine.exporters.exporter_info import ExporterInfo
from secateur_wire.errors import InvalidRequest


class _HashedInfo(ExporterInfo):
    def check(self, description: Description, removal: Removal | None) -> None:
        if description.task not in self.task_families:
            raise InvalidRequest(
                "output.format: 'hashed' is for image classifiers; for a language model use 'packed'",
                param="output.format",
            )


INFO = _HashedInfo(
    id="hashed",
    rank=30,
    written="after",
    task_families=("image-classification",),
    summary="hashed, for image classifiers: the weights of every linear layer share a few values, chosen by a hash of "
    "their positions (HashedNets). Only these values are stored.",
    opening="The linear layers' weights share values chosen by a hash: `secateur download JOB --unpack` restores the "
    "files bit by bit. Then:",
    replaces_weights=True,
    changes_weights=True,
    has_known_size=False,
    default_compression=1 / 8,
)
