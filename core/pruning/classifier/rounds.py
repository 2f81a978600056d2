"""What survives between the rounds of an iterative method: the whole model, and what the method says of itself.

Written aside and renamed, with hashes; the round before goes only then. A process killed anywhere leaves a whole round.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from core.models.classifier import COUNTERS
from core.models.resized import resize_modules
from core.models.weights import load_tensors, write_tensors
from core.pruning.boundaries import STATE, file_sha256, read_state

FOLDER = "rounds"
PATTERN = f"{FOLDER}/round-*/{STATE}"
"""Of the state files below an attempt's folder: a round is there."""
_MODEL = "model.safetensors"


@dataclass(frozen=True)
class Saved:
    """After `number` rounds: the model's tensors, the groups of its grouped convolutions, and `state`, the method's
    own, as JSON."""

    number: int
    tensors: dict[str, Tensor]
    groups: dict[str, int]
    state: dict[str, Any]

    def restore(self, model: nn.Module) -> None:
        """Give the model these tensors, and their shapes."""
        resize_modules(model, self.tensors, self.groups)
        model.load_state_dict(self.tensors, strict=False)


class Rounds:
    """In the work folder of one attempt, `previous` being those of earlier ones, the newest first. `fingerprint` names
    everything the numbers depend on."""

    def __init__(self, work: Path, fingerprint: str, previous: Sequence[Path] = ()) -> None:
        self._folder = work / FOLDER
        self._previous = previous
        self._fingerprint = fingerprint

    def save(self, number: int, model: nn.Module, state: dict[str, Any]) -> None:
        """Write a round; only then the one before goes."""
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
        """The newest whole round of this attempt, else of the first earlier one that has any with this fingerprint."""
        for folder in (self._folder, *(each / FOLDER for each in self._previous)):
            for place in sorted(folder.glob("round-*"), reverse=True):
                record = read_state(place / STATE)
                if record is None or record["fingerprint"] != self._fingerprint:
                    continue
                if all(file_sha256(place / name) == digest for name, digest in record["files"].items()):
                    tensors = load_tensors(place / _MODEL)
                    return Saved(int(record["round"]), tensors, record["groups"], record["state"])
        return None
