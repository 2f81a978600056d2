"""Writer of the weights and the config of a model with fewer tokens; all else is the dense model's."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Final

import numpy as np

from core.counting import working
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.description import weight_files
from core.engine.architectures.heterogeneous import MODELLING_FILE, modelling_file, per_layer_architecture
from core.engine.checkpoints.files import CONFIG_FILE
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES, TensorEntry, encode_header, read_header
from core.engine.exporters.huggingface import SHARD_BYTES, write_weights
from core.engine.models.folder import ModelFolder, open_model
from core.engine.removals.vocabulary.settings import reduced_config
from core.engine.removals.vocabulary.sizes import vocabulary_size
from core.progress import Progress
from secateur_wire.errors import InvalidRequest, MissingTensors, UnsupportedArchitecture

_AT_ONCE: Final = 2**24
"""Bytes of a table that are in memory at once."""


def write_reduced(
    folder: ModelFolder,
    kept: Sequence[int],
    target: Path,
    progress: Progress | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> ModelFolder:
    """Write the model that keeps the tokens `kept`, ids in ascending order, into a folder; return it, opened.

    Tensors with an entry for each token keep those of these tokens. The bytes of all others are copied, quantised ones
    as they are; config.json gets the new ids. The tokenizer and the other small files are `write_tokenizer`'s.

    Raises UnsupportedArchitecture where tokens cannot go, with the reason; InvalidRequest for ids that are not in
    order, or beyond the model's.
    """
    progress = progress or Progress()
    vocabulary_size(folder.description)
    _require_ascending(kept)
    target.mkdir(parents=True, exist_ok=True)
    gathered = target / ".tables.safetensors"
    try:
        entries = _gathered(folder, kept, gathered, progress)
        write_weights(entries, target, shard_bytes=shard_bytes)
    finally:
        gathered.unlink(missing_ok=True)
    config = json.loads((folder.path / CONFIG_FILE).read_bytes())
    (target / CONFIG_FILE).write_text(json.dumps(reduced_config(config, kept, folder.family), indent=2, sort_keys=True))
    family = per_layer_architecture(config, folder.description.discovered)
    if family is not None:
        (target / MODELLING_FILE).write_text(modelling_file(family))
    return open_model(target, own_artifact=True, discovered=folder.description.discovered)


def _require_ascending(kept: Sequence[int]) -> None:
    if not kept or any(one >= other for one, other in pairwise(kept)) or kept[0] < 0:
        raise InvalidRequest("the ids of the tokens that stay must be in ascending order, each once, from 0 up")


def _gathered(folder: ModelFolder, kept: Sequence[int], file: Path, progress: Progress) -> list[TensorEntry]:
    """Return the entries of the reduced model's tensors; those with an entry for each token are written to a file."""
    stored = [entry for each in weight_files(folder.path) for entry in read_header(each).values()]
    tables = [each for each in map(partial(_table, folder.family), stored) if each is not None]
    most = max(each.rows for each in tables)
    if kept[-1] >= most:
        raise InvalidRequest(f"token {kept[-1]} is beyond the model's {most} rows")
    smaller = [each.smaller(kept) for each in tables]
    with file.open("wb") as stream:
        stream.write(encode_header(smaller))
        for table in tables:
            with working(f"taking rows of {table.entry.name}"):
                for rows in table.chunks(kept):
                    stream.write(rows)
            progress.raise_if_stopped()
    written = read_header(file)
    return [written.get(entry.name, entry) for entry in stored]


@dataclass(frozen=True)
class _Table:
    """Stored tensor [outer, rows, ...] with a row for each token."""

    entry: TensorEntry
    dimension: int

    @property
    def rows(self) -> int:
        return self.entry.shape[self.dimension]

    @property
    def row_bytes(self) -> int:
        return self.entry.nbytes // (self.rows * self._outer)

    @property
    def _outer(self) -> int:
        return prod(self.entry.shape[: self.dimension])

    def smaller(self, kept: Sequence[int]) -> tuple[str, str, Sequence[int], int]:
        """Return name, dtype, shape and bytes of the table that has the rows of these tokens."""
        rows, shape = len(self._own(kept)), list(self.entry.shape)
        shape[self.dimension] = rows
        return self.entry.name, self.entry.dtype, shape, self._outer * rows * self.row_bytes

    def chunks(self, kept: Sequence[int]) -> Iterator[bytes]:
        """Yield the bytes of the rows of these tokens, in order, some rows of the file at a time."""
        own = np.array(self._own(kept), dtype=np.int64)
        step = max(1, _AT_ONCE // self.row_bytes)
        with self.entry.file.open("rb") as source:
            for outer in range(self._outer):
                start = self.entry.start + outer * self.rows * self.row_bytes
                for begin in range(0, self.rows, step):
                    inside = own[np.searchsorted(own, begin) : np.searchsorted(own, begin + step)] - begin
                    if len(inside):
                        source.seek(start + begin * self.row_bytes)
                        read = source.read(int(inside[-1] + 1) * self.row_bytes)
                        yield np.frombuffer(read, np.uint8).reshape(-1, self.row_bytes)[inside].tobytes()

    def _own(self, kept: Sequence[int]) -> Sequence[int]:
        """Return the tokens that the table has a row for; a second table may have one for the first tokens alone."""
        return [each for each in kept if each < self.rows]


def _table(family: Architecture, entry: TensorEntry) -> _Table | None:
    """Return the table that a stored tensor is; None for one without an entry for each token."""
    dimension = family.vocabulary_dimension(family.module_name(entry.name))
    if dimension is None:
        return None
    if entry.dtype not in WEIGHT_DTYPES:
        raise UnsupportedArchitecture(
            f"{entry.name[:200]} has an entry for each token and is quantised ({entry.dtype}), so that none can go: "
            "use the model with float16, bfloat16 or float32 weights",
            param="model",
        )
    if len(entry.shape) <= dimension or not entry.numel:
        raise MissingTensors(f"{entry.name[:200]} has shape {list(entry.shape)}: no table of tokens", param="model")
    return _Table(entry, dimension)
