"""Kinds of records in an attempt's work folder, and their paths. Without torch, because a worker's parent uses them.

The stages of one attempt save different kinds: `work/resume/KIND/POSITION/state.json` completes one record.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = "resume"
STATE = "state.json"
"""File that is written last; it completes the record of the files beside it."""


@dataclass(frozen=True)
class Kind:
    """Kind of record.

    `keep` is the number of newest records that stay in a folder. `foreign` and `damaged` are texts for the report of a
    job that starts over: why a record was not used.
    """

    name: str
    keep: int = 1
    foreign: str = "the earlier attempt ran with other settings (device, threads, dtype or versions)"
    damaged: str = "the earlier attempt's files are damaged"
    consequence: str = "the job starts over"

    @property
    def pattern(self) -> str:
        """Pattern of the files that complete records, relative to an attempt's folder."""
        return f"{FOLDER}/{self.name}/*/{STATE}"


BLOCK = Kind("block", keep=2)
"""Finished blocks of a language model, and the hidden states behind the last one."""
SELECTION = Kind("units")
"""Units chosen for removal, and the weights that were trained in the selection."""
STEP = Kind(
    "step",
    foreign="the earlier attempt trained with other settings (weights, device, threads or versions)",
    damaged="the earlier attempt's training state is damaged",
    consequence="training starts over",
)
"""Steps of training: trained tensors, and the optimiser's moments."""
ROUND = Kind("round")
"""Rounds of an iterative method on a classifier: the model, and the method's own state."""
CURVES = Kind("curves")
"""Sensitivity curves of a classifier's measured layers."""
LATENCY = Kind("latency")
"""Sparsity at which a model reaches the requested latency."""

VOCABULARY = Kind("vocabulary", consequence="the tokens that stay are chosen anew")
"""Tokens that stay of a vocabulary."""

TEXT = Kind("text", consequence="the text is written anew")
"""Batches of the text that a model writes, and the state of the random numbers after them."""

ANSWERS = Kind("answers", consequence="the questions are answered anew")
"""Batches of answers to questions, and the models' hidden states along the dense model's answers."""


def kinds_in(attempt: Path) -> set[str]:
    """Return the names of the kinds of records in an attempt's folder, including kinds not listed here."""
    return {file.parents[1].name for file in attempt.glob(f"{FOLDER}/*/*/{STATE}")}
