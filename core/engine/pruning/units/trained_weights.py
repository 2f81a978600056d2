"""Weights that a method trains while it chooses what to remove: a file for each block, in the attempt's work folder."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from core.engine.models.tensors import load_tensors, write_tensors
from core.engine.pruning.layerwise.block_store import file_sha256

_FOLDER = "changed"


class ChangedWeights:
    """Files of changed tensors, one for each block that changed.

    `hashes` are their SHA-256 by file name, empty where nothing changed; they are stored with the choice.
    """

    def __init__(self, work: Path) -> None:
        self._folder = work / _FOLDER
        self.hashes: dict[str, str] = {}

    def write(self, layer: int, tensors: Mapping[str, Tensor]) -> None:
        """Write a block's changed tensors, named relative to the block, in the dtype they are to be saved in."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._file(layer)
        self.hashes[file.name] = write_tensors(file, tensors)

    def over(self, layer: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a block's tensors, with the changed ones in place of the source's."""
        if self._file(layer).name not in self.hashes:
            return dict(tensors)
        changed = load_tensors(self._file(layer))
        assert changed.keys() <= tensors.keys()
        return {**tensors, **changed}

    def adopt(self, work: Path, hashes: Mapping[str, str]) -> bool:
        """Take over the files an attempt in the folder `work` wrote; False where one is missing or damaged."""
        source = work / _FOLDER
        if any(file_sha256(source / name) != digest for name, digest in hashes.items()):
            return False
        if hashes and source != self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in hashes:
                target = self._folder / name
                target.unlink(missing_ok=True)
                try:
                    os.link(source / name, target)
                except OSError:
                    shutil.copyfile(source / name, target)
        self.hashes = dict(hashes)
        return True

    def _file(self, layer: int) -> Path:
        return self._folder / f"{layer:05d}.safetensors"
