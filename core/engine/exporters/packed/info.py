"""Packed files: their description."""

from core.engine.architectures.description import Description
from core.engine.cuts import Removal
from core.engine.exporters.exporter_info import ExporterInfo
from secateur_wire.errors import InvalidRequest


class _PackedInfo(ExporterInfo):
    def check(self, description: Description, removal: Removal | None) -> None:
        if removal is not None and not removal.keeps_zeros:
            raise InvalidRequest(
                "output.format: structured pruning leaves no zeros to pack, because the files get smaller anyway: "
                "use 'dense'",
                param="output.format",
            )


INFO = _PackedInfo(
    id="packed",
    rank=20,
    written="after",
    summary="packed: which weights or codes are not zero, and their values.",
    opening="The weights are packed: `secateur download JOB --unpack` restores them bit by bit. Then:",
    replaces_weights=True,
    leaves_out_zeros=True,
)
