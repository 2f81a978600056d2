"""Unpacking: the dense weight files of a checkpoint, byte for byte, from bitmasks and surviving values.

In a packed file a pruned tensor `w` is stored as `w.values` (the values whose bits are not all zero, in order) and
`w.bitmask` (one bit per weight, lowest bit first). Files of quantised models are of version 2: `codes` decodes their
codes. `hashed` decodes weight sharing by a hash.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from secateur_wire.weights import hashed
from secateur_wire.weights.codes import restored_codes
from secateur_wire.weights.restore import (
    UNSIGNED,
    CorruptPackedFile,
    Tensor,
    WeightFile,
    mask_bytes,
    restore_file,
    survivors,
)

SUFFIX: Final = ".packed.safetensors"


def unpack_file(packed: Path, dense: Path) -> None:
    """Write the dense file that `packed` was made from, byte for byte, to a temporary file that is then renamed.

    Raises CorruptPackedFile, and then leaves no file.
    """
    restore_file(packed, dense, form="packed", restore=_unpacked, versions=("1", "2"))


def unpack_folder(folder: Path) -> list[Path]:
    """Restore every packed or hashed file of a folder, then remove these; return the restored files.

    Nothing is removed before all files are restored and verified, so it can be repeated after any failure. Raises
    CorruptPackedFile.
    """
    forms = {SUFFIX: unpack_file, hashed.SUFFIX: hashed.expand_file}
    files = {file: suffix for suffix in forms for file in sorted(folder.glob(f"*{suffix}"))}
    restored = []
    for file, suffix in files.items():
        target = file.with_name(file.name.removesuffix(suffix) + ".safetensors")
        forms[suffix](file, target)
        restored.append(target)
    for file in files:
        file.unlink()
    return restored


def _unpacked(stored: WeightFile, tensor: Tensor) -> Iterator[bytes]:
    if f"{tensor.name}.codes" in stored.tensors:
        yield from restored_codes(stored, tensor)
        return
    values, mask = stored.tensors.get(f"{tensor.name}.values"), stored.tensors.get(f"{tensor.name}.bitmask")
    if values is None or mask is None or not tensor.width or mask.nbytes != mask_bytes(tensor):
        raise CorruptPackedFile(f"{stored.name}: tensor {tensor.name!r} lacks its values or its bitmask")
    dtype, place = UNSIGNED[tensor.width], values.start
    for survives in survivors(stored, tensor, mask):
        size = int(np.count_nonzero(survives)) * tensor.width
        if place + size > values.end:
            raise CorruptPackedFile(f"{stored.name}: the bitmask of {tensor.name!r} counts more values than there are")
        stored.source.seek(place)
        restored = np.zeros(len(survives), dtype)
        restored[survives] = np.frombuffer(stored.source.read(size), dtype)
        place += size
        yield restored.tobytes()
    if place != values.end:
        raise CorruptPackedFile(f"{stored.name}: the bitmask of {tensor.name!r} counts fewer values than there are")


__all__ = ["SUFFIX", "CorruptPackedFile", "unpack_file", "unpack_folder"]
