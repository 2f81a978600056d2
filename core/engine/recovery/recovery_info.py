"""Description of a recovery, from its folder: the trained parameters, the models, and the cost."""

from dataclasses import dataclass
from typing import Literal

Adapters = Literal["never", "always", "unless null"]
"""Training of low-rank adapters in place of the weights; `unless null`: unless the request sets null."""


@dataclass(frozen=True)
class RecoveryInfo:
    """Description of a recovery. `summary` is the text after its id where requests are described.

    Lists go by `rank`, lowest first. `task_families` are the models it trains. With `learns_from_model` it learns a
    teacher's predictions, and a request may set a temperature. `logit_copies` counts the float32 copies of a forward's
    logits: the output, its float cast, their gradient, and those of the loss. At most `most_kept_bytes` of a teacher's
    predictions are kept for later use, `token_bytes` per token.
    """

    id: str
    rank: int
    summary: str
    task_families: tuple[str, ...]
    adapters: Adapters
    learns_from_model: bool = False
    logit_copies: int = 4
    most_kept_bytes: int = 0
    token_bytes: int = 0

    def trains(self, task: str) -> bool:
        """Return True if it trains the models of a task."""
        return task in self.task_families
