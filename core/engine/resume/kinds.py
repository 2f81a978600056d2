"""Kinds of records in an attempt's work folder, and where each lies; without torch, as a worker's parent asks for them.

The stages of one attempt save different kinds: `work/resume/KIND/POSITION/state.json` completes one record.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = "resume"
STATE = "state.json"
"""File that is written last, and makes a record of the files beside it."""


@dataclass(frozen=True)
class Kind:
    """A kind of record.

    `keep` is how many of the newest stay in a folder. `foreign` and `damaged` say, in the report of a job that has to
    start over, why a record was not taken.
    """

    name: str
    keep: int = 1
    foreign: str = "the earlier attempt ran with other settings (device, threads, dtype or versions)"
    damaged: str = "the earlier attempt's files are damaged"
    consequence: str = "the job starts over"

    @property
    def pattern(self) -> str:
        """The pattern, below an attempt's folder, of the files by which records are found."""
        return f"{FOLDER}/{self.name}/*/{STATE}"


BLOCK = Kind("block", keep=2)
"""Blocks of a language model that are finished, and the hidden states behind the last."""
SELECTION = Kind("units")
"""The units chosen to be removed, and the weights that were trained meanwhile."""
STEP = Kind(
    "step",
    foreign="the earlier attempt trained with other settings (weights, device, threads or versions)",
    damaged="the earlier attempt's training state is damaged",
    consequence="training starts over",
)
"""Steps of training: trained tensors, and the optimiser's moments."""
ROUND = Kind("round")
"""Rounds of an iterative method on a classifier: the model, and what the method says of itself."""
CURVES = Kind("curves")
"""Curves of a classifier's layers whose sensitivity was measured."""
LATENCY = Kind("latency")
"""The sparsity at which a model is as fast as was asked for."""


def kinds_in(attempt: Path) -> set[str]:
    """Return the names of the kinds of which an attempt's folder has a record, those of no list here among them."""
    return {file.parents[1].name for file in attempt.glob(f"{FOLDER}/*/*/{STATE}")}
