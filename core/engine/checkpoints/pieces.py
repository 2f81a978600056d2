"""Tensors of a model that files store in pieces: as several tensors in a row, or as a slice of one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from core.engine.checkpoints.safetensors_header import TensorEntry, dtype_bytes
from secateur_wire.errors import CorruptSafetensors


@dataclass(frozen=True)
class Pieces:
    """Concatenation of stored tensors along a dimension, and the slice from `begin` to `end` (None: the last) of it.

    `stored` are their keys in files, or patterns of keys with `{}` for every number.
    """

    stored: tuple[str, ...]
    dimension: int
    begin: int = 0
    end: int | None = None


@dataclass(frozen=True)
class PiecedEntry(TensorEntry):
    """Tensor that is built from pieces: `parts` are concatenated and sliced as in `Pieces`.

    The position in a file is the first part's.
    """

    parts: tuple[TensorEntry, ...] = ()
    pieces: Pieces = field(default_factory=lambda: Pieces((), 0))

    @property
    def nbytes(self) -> int:
        return dtype_bytes(self.dtype, self.shape)


def pieced_entry(name: str, parts: Sequence[TensorEntry], pieces: Pieces) -> PiecedEntry:
    """Return the tensor that parts make; raises CorruptSafetensors where the parts do not fit one another."""
    first, dimension = parts[0], pieces.dimension
    for part in parts:
        others = [size for place, size in enumerate(part.shape) if place != dimension]
        if (
            part.dtype != first.dtype
            or len(part.shape) != len(first.shape)
            or dimension >= len(part.shape)
            or (others != [size for place, size in enumerate(first.shape) if place != dimension])
        ):
            raise CorruptSafetensors(
                f"{part.name[:200]} is {part.dtype} {list(part.shape)}, but {first.name[:200]} is {first.dtype} "
                f"{list(first.shape)}: they are parts of one tensor, so only dimension {dimension} may differ",
                param="model",
            )
    size = sum(part.shape[dimension] for part in parts)
    end = size if pieces.end is None else pieces.end
    if end > size:
        raise CorruptSafetensors(
            f"{first.name[:200]} has shape {list(first.shape)}: dimension {dimension} must be {end}, because of the "
            "parts that follow",
            param="model",
        )
    shape = tuple(end - pieces.begin if place == dimension else each for place, each in enumerate(first.shape))
    return PiecedEntry(
        name,
        first.dtype,
        shape,
        first.file,
        first.start,
        first.end,
        parts=tuple(parts),
        pieces=replace(pieces, end=end),
    )
