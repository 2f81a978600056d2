"""Writer of the weights and the config of a model with fewer tokens; all else is the dense model's."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
from transformers import PretrainedConfig

from core.counting import working
from core.engine.architectures.architecture import VOCABULARY_KEY, Architecture
from core.engine.architectures.folder import weight_files
from core.engine.architectures.heterogeneous import MODELLING_FILE, modelling_file, per_layer_architecture
from core.engine.checkpoints.files import CONFIG_FILE
from core.engine.checkpoints.quantisation import SHORT_FLOATS
from core.engine.checkpoints.safetensors_header import TensorEntry, encode_header, read_header
from core.engine.exporters.huggingface import write_weights
from core.engine.models.folder import ModelFolder, open_model
from core.engine.removals.vocabulary import vocabulary_size
from core.engine.vocabulary.settings import reduced_config, required_ids
from core.engine.vocabulary.small_copy import require_exact
from core.progress import Progress
from secateur_wire.errors import InvalidRequest, MissingTensors, UnsupportedArchitecture

_AT_ONCE: Final = 2**24
"""Bytes of a table that are in memory at once."""


def write_reduced(
    folder: ModelFolder, kept: Sequence[int], target: Path, progress: Progress | None = None
) -> ModelFolder:
    """Write the model that keeps the tokens `kept`, ids in ascending order, into a folder; return it, opened.

    Tensors with an entry for each token keep those of these tokens. The bytes of all others are copied, quantised ones
    as they are; config.json gets the new ids. The tokenizer and the other small files are `write_tokenizer`'s.

    Raises UnsupportedArchitecture where tokens cannot go, with the reason; InvalidRequest for ids that are not in
    order, or beyond the model's.
    """
    vocabulary_size(folder.description)
    require_exact(folder, kept)
    discovered = folder.description.discovered
    (progress or Progress()).raise_if_stopped()
    write_rows(folder.path, kept, target, folder.family, folder.config)
    config = json.loads((folder.path / CONFIG_FILE).read_bytes())
    if per_layer_architecture(config, discovered) is not None:
        (target / MODELLING_FILE).write_text(modelling_file(folder.family))
    return open_model(target, own_artifact=True, discovered=discovered)


def write_rows(source: Path, kept: Sequence[int], target: Path, family: Architecture, opened: PretrainedConfig) -> None:
    """Write weights and config.json of the model that keeps these tokens; of the architecture, its vocabulary is used.

    `opened` is the config object of the model in `source`. Raises as `write_reduced`.
    """
    config = json.loads((source / CONFIG_FILE).read_bytes())
    tokens = family.config_value(config, VOCABULARY_KEY)
    _require_ids(kept, tokens)
    target.mkdir(parents=True, exist_ok=True)
    reduced = reduced_config(config, kept, family, opened)
    stored = [entry for each in weight_files(source) for entry in read_header(each).values()]
    tables = [table for each in stored if (table := _table(family, each, tokens)) is not None]
    gathered = target / ".tables.safetensors"
    try:
        with gathered.open("wb") as stream:
            stream.write(encode_header(each.smaller(kept) for each in tables))
            for table in tables:
                with working(f"taking rows of {table.entry.name}"):
                    for rows in table.chunks(kept):
                        stream.write(rows)
        written = read_header(gathered)
        write_weights([written.get(each.name, each) for each in stored], target)
    finally:
        gathered.unlink(missing_ok=True)
    (target / CONFIG_FILE).write_text(json.dumps(reduced, indent=2, sort_keys=True))


def required_tokens(folder: ModelFolder) -> set[int]:
    """Return the ids that a model's config names, the defaults of its class among them: their tokens must stay."""
    config = json.loads((folder.path / CONFIG_FILE).read_bytes())
    return required_ids(config, folder.family, folder.config)


def _require_ids(kept: Sequence[int], tokens: int) -> None:
    if not kept or kept[0] < 0 or kept[-1] >= tokens or any(one >= other for one, other in pairwise(kept)):
        raise InvalidRequest(f"the ids of the tokens that stay must ascend, each once, from 0 to {tokens - 1}")


@dataclass(frozen=True)
class _Table:
    """Stored tensor [outer, rows, ...] with a row for each of the model's `tokens`, or for the first of them.

    Rows behind those are no token's, and all stay.
    """

    entry: TensorEntry
    dimension: int
    tokens: int

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
        """Return the rows that the table keeps."""
        return [*(each for each in kept if each < self.rows), *range(self.tokens, self.rows)]


def _table(family: Architecture, entry: TensorEntry, tokens: int) -> _Table | None:
    """Return the table that a stored tensor is; None for one without an entry for each token."""
    dimension = family.vocabulary_dimension(family.module_name(entry.name))
    if dimension is None:
        return None
    if entry.dtype.startswith(SHORT_FLOATS):
        raise UnsupportedArchitecture(
            f"{entry.name[:200]} has an entry for each token and is quantised ({entry.dtype}), so that none can go: "
            "use the model with float16, bfloat16 or float32 weights",
            param="model",
        )
    if len(entry.shape) <= dimension or not entry.numel:
        raise MissingTensors(f"{entry.name[:200]} has shape {list(entry.shape)}: no table of tokens", param="model")
    return _Table(entry, dimension, tokens)
