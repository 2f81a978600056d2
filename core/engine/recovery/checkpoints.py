"""Checkpoints of training: trained tensors and optimiser moments in safetensors, progress and their SHA-256 in JSON.

A checkpoint is written to a partial folder, renamed, and the one before removed: a process killed at any point leaves
an intact checkpoint. Rates, order of the sequences and random numbers follow from the seed and the step alone, so
nothing else needs to be saved.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from core.engine.models.tensors import load_tensors, write_tensors
from core.engine.pruning.layerwise.block_store import STATE, file_sha256, read_state

FOLDER = "recovery"
PATTERN = f"{FOLDER}/step-*/{STATE}"
"""Pattern, below an attempt's folder, of the state files by which a checkpoint is found."""
_TRAINED = "trained.safetensors"
_MOMENTS = "moments.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps of training.

    It holds trained tensors by name, the optimiser's moments by `name/moment`, the loss of each step, and the rounds of
    adaptive sampling.
    """

    step: int
    trained: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    losses: Sequence[float]
    rounds: Sequence[dict[str, Any]] = ()


class Checkpoints:
    """The checkpoints in the work folder of one attempt; `fingerprint` names everything the numbers depend on."""

    def __init__(self, work: Path, fingerprint: str) -> None:
        self._folder = work / FOLDER
        self._fingerprint = fingerprint

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, and only then delete the one before."""
        target = self._folder / f"step-{checkpoint.step:07d}"
        partial = self._folder / f"partial-{checkpoint.step:07d}"
        for leftover in (partial, target):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        record = {
            "fingerprint": self._fingerprint,
            "step": checkpoint.step,
            "losses": list(checkpoint.losses),
            "rounds": list(checkpoint.rounds),
            "files": {
                _TRAINED: write_tensors(partial / _TRAINED, checkpoint.trained),
                _MOMENTS: write_tensors(partial / _MOMENTS, checkpoint.moments),
            },
        }
        (partial / STATE).write_text(json.dumps(record))
        partial.rename(target)
        for earlier in self._folder.glob("*-*"):
            if earlier != target:
                shutil.rmtree(earlier, ignore_errors=True)

    def newest(self, previous: Sequence[Path] = ()) -> Checkpoint | str | None:
        """Return the newest intact checkpoint of this attempt's folder, else of the first earlier one that has any.

        None where there is none; a sentence that says why where there is one but it does not fit.
        """
        reason: str | None = None
        for folder in (self._folder, *(each / FOLDER for each in previous)):
            for place in sorted(folder.glob("step-*"), reverse=True):
                record = read_state(place / STATE)
                if record is None:
                    continue
                if record["fingerprint"] != self._fingerprint:
                    reason = "the earlier attempt trained with other settings (weights, device, threads or versions)"
                elif any(file_sha256(place / name) != digest for name, digest in record["files"].items()):
                    reason = "the earlier attempt's training state is damaged"
                else:
                    trained, moments = (load_tensors(place / name) for name in (_TRAINED, _MOMENTS))
                    return Checkpoint(int(record["step"]), trained, moments, record["losses"], record.get("rounds", []))
        return f"{reason}: training starts over" if reason else None
