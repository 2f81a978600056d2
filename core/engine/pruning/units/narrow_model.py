"""Model of the blocks that are left of another, which it shares all else with."""

from collections.abc import Sequence
from dataclasses import replace

from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_kind import UnitKind
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.units.removal import UnitCounts
from core.engine.pruning.units.removal_config import config_after_removal
from secateur_wire.base import JsonObject


def narrow_model(
    streamed: StreamedModel, structure: ModelStructure, kinds: Sequence[UnitKind], counts: UnitCounts
) -> tuple[JsonObject, StreamedModel]:
    """Return the config.json of what is left of a model, and that with empty blocks, beside embeddings and head."""
    folder = streamed.folder
    raw = config_after_removal(folder.raw_config, folder.config, folder.family, structure, kinds, counts)
    narrow = StreamedModel(
        replace(folder, config=folder.config_of(raw)),
        dtype=streamed.dtype,
        device=streamed.device,
        outer=streamed.model,
    )
    return raw, narrow
