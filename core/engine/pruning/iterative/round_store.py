"""Saved state between the rounds of an iterative method: the entire model, and the method's own state.

A round is written to a partial folder and renamed, with hashes; only then is the round before deleted. A process killed
at any point leaves an intact round.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from core.engine.models.classifier import COUNTERS
from core.engine.models.reshaping import resize_modules
from core.engine.models.tensors import load_tensors, write_tensors
from core.engine.pruning.layerwise.block_store import STATE, file_sha256, read_state

FOLDER = "rounds"
PATTERN = f"{FOLDER}/round-*/{STATE}"
"""Pattern, below an attempt's folder, of the state files by which a saved round is found."""
_MODEL = "model.safetensors"


@dataclass(frozen=True)
class Saved:
    """A saved round.

    It holds the model's tensors after `number` rounds, the `groups` of its grouped convolutions, and `state`, the
    method's own, as JSON.
    """

    number: int
    tensors: dict[str, Tensor]
    groups: dict[str, int]
    state: dict[str, Any]

    def restore(self, model: nn.Module) -> None:
        """Load the tensors into the model, which takes their shapes."""
        resize_modules(model, self.tensors, self.groups)
        model.load_state_dict(self.tensors, strict=False)


class Rounds:
    """The saved rounds in the work folder of one attempt.

    `previous` are the folders of earlier attempts, the newest first. `fingerprint` names everything the numbers depend
    on.
    """

    def __init__(self, work: Path, fingerprint: str, previous: Sequence[Path] = ()) -> None:
        self._folder = work / FOLDER
        self._previous = previous
        self._fingerprint = fingerprint

    def save(self, number: int, model: nn.Module, state: dict[str, Any]) -> None:
        """Write a round, and only then delete the one before."""
        target, partial = self._folder / f"round-{number:05d}", self._folder / f"partial-{number:05d}"
        for leftover in (partial, target):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        tensors = {name: each for name, each in model.state_dict().items() if not name.endswith(COUNTERS)}
        groups = {name: each.groups for name, each in model.named_modules() if isinstance(each, nn.Conv2d)}
        record = {
            "fingerprint": self._fingerprint,
            "round": number,
            "state": state,
            "groups": groups,
            "files": {_MODEL: write_tensors(partial / _MODEL, tensors)},
        }
        (partial / STATE).write_text(json.dumps(record))
        partial.rename(target)
        for earlier in self._folder.glob("*-*"):
            if earlier != target:
                shutil.rmtree(earlier, ignore_errors=True)

    def newest(self) -> Saved | None:
        """Return the newest intact round of this attempt, else of the first earlier one that has any; None if none has.

        Only rounds with this fingerprint count.
        """
        for folder in (self._folder, *(each / FOLDER for each in self._previous)):
            for place in sorted(folder.glob("round-*"), reverse=True):
                record = read_state(place / STATE)
                if record is None or record["fingerprint"] != self._fingerprint:
                    continue
                if all(file_sha256(place / name) == digest for name, digest in record["files"].items()):
                    tensors = load_tensors(place / _MODEL)
                    return Saved(int(record["round"]), tensors, record["groups"], record["state"])
        return None
