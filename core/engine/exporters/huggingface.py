"""Writer of checkpoints: block files joined into safetensors shards, with the source's config and tokenizer."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.heterogeneous import MODELLING_FILE, modelling_file, per_layer_architecture
from core.engine.checkpoints.files import COMPANIONS, CONFIG_FILE, INDEX_FILE, SINGLE_FILE
from core.engine.checkpoints.quantisation import QUANTISATION_KEY, plain_config
from core.engine.checkpoints.safetensors_header import TensorEntry, encode_header, read_header

SHARD_BYTES = 5 * 10**9


def write_checkpoint(
    files: Sequence[Path],
    unchanged: Sequence[TensorEntry],
    source: Path,
    folder: Path,
    *,
    config: Mapping[str, Any] | None = None,
    discovered: Architecture | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Join safetensors files, and unchanged tensors of the source, into a model folder for `from_pretrained`.

    Config (unless another is given), generation config and tokenizer are copied from `source`; without the config's
    entry on quantised weights, because those of the source are dequantised. Where the config gives layers different
    shapes, the modelling file that builds them is written too, for the declared architecture or else for `discovered`.
    Tensor bytes are copied file to file. Returns the bytes of all tensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = [*unchanged, *(entry for file in files for entry in read_header(file).values())]
    content = json.loads((source / CONFIG_FILE).read_bytes()) if config is None else config
    if config is None and content.get(QUANTISATION_KEY) is not None:
        config = plain_config(content)
    family = per_layer_architecture(content, discovered)
    if family is not None:  # transformers renames keys of files only for its own classes
        entries = [replace(entry, name=family.module_name(entry.name)) for entry in entries]
    total = write_weights(entries, folder, shard_bytes=shard_bytes)
    for name in COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if config is not None:
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True))
    if family is not None:
        (folder / MODELLING_FILE).write_text(modelling_file(family))
    return total


def write_weights(entries: Sequence[TensorEntry], folder: Path, *, shard_bytes: int = SHARD_BYTES) -> int:
    """Write the weight files of a folder, and their index where there are several; return the bytes of all tensors.

    Tensor bytes are copied from the entries' files.
    """
    shards: list[list[TensorEntry]] = [[]]
    filled = 0
    for entry in entries:
        size = entry.end - entry.start
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(entry)
        filled += size
    total = sum(entry.end - entry.start for entry in entries)
    if len(shards) == 1:
        _write_shard(folder / SINGLE_FILE, shards[0])
    else:
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            _write_shard(folder / name, shard)
            weight_map |= {entry.name: name for entry in shard}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2, sort_keys=True))
    return total


def _write_shard(file: Path, entries: Sequence[TensorEntry]) -> None:
    header = encode_header((entry.name, entry.dtype, entry.shape, entry.end - entry.start) for entry in entries)
    with file.open("wb") as target:
        target.write(header)
        for entry in entries:
            with entry.file.open("rb") as source:
                source.seek(entry.start)
                _copy(source, target, entry.end - entry.start)


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size:
        chunk = source.read(min(size, 2**24))
        assert chunk, "a block file was cut short while it was read"
        target.write(chunk)
        size -= len(chunk)
