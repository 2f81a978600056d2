"""Alternatives to pruning: what the dense model takes in a narrower dtype, and in the files of other runtimes."""

from collections.abc import Iterator
from typing import Final

from core.engine.architectures.describe import Description, stored_as
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.exporters.registry import ADDED
from secateur_wire.job_body import StoredDtype
from secateur_wire.metrics import Alternative

NARROW: Final[StoredDtype] = "bfloat16"
"""Dtype that costs wider weights almost no quality."""


def narrower_dtype(description: Description) -> StoredDtype:
    """Return the `output.dtype` in which a model takes the fewest bytes at almost no cost, 'keep' where it has it."""
    is_wider = stored_as(description, NARROW).bytes < description.bytes
    return NARROW if description.model_task.has_perplexity and is_wider else "keep"


def alternatives_to_pruning(description: Description) -> list[Alternative]:
    """Return the copies of a dense language model that are smaller than it; empty for an image classifier."""
    if not description.model_task.has_perplexity:
        return []
    return [each for each in _copies(description) if each.bytes < description.bytes]


def _copies(description: Description) -> Iterator[Alternative]:
    size = stored_as(description, NARROW).bytes
    yield Alternative(
        name=f"dense in {NARROW}",
        output={"dtype": NARROW},
        bytes=size,
        ratio=size / description.bytes,
        basis=f"counted: every wider weight in {WEIGHT_BYTES[NARROW]} bytes",
    )
    for form, exporter in ADDED.items():
        for kind, size in exporter.dense_sizes(description.language_model).items():
            yield Alternative(
                name=f"dense as {form} {kind}",
                output={"exports": [{"format": form, "types": [kind]}]},
                bytes=size,
                ratio=size / description.bytes,
                basis="counted: the sizes of its tensors as they are written; the vocabulary is added to them",
            )
