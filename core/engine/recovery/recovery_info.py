"""Description of a recovery, as its folder gives it: what is trained, on which models, and what that costs."""

from dataclasses import dataclass
from typing import Literal

Adapters = Literal["never", "always", "unless null"]
"""Training of low-rank adapters in place of the weights; `unless null`: where the request does not say null instead."""


@dataclass(frozen=True)
class RecoveryInfo:
    """Description of a recovery. `summary` is what follows its id where requests are described.

    Lists go by `rank`, lowest first. `task_families` are the models it trains. `learns_from_model`: a teacher's
    predictions are learnt, beside which a request may soften them. `logit_copies` are those of the logits of a forward
    in float32: the output, its float cast, their gradient, and those of the loss. `most_kept_bytes` of what is learnt
    are kept for the next time, `token_bytes` of each token, where a sequence is used `uses_to_keep` times on average.
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
    uses_to_keep: int = 1

    def trains(self, task: str) -> bool:
        """Return whether it trains the models of a task."""
        return task in self.task_families

    def kept_bytes(self, uses: int, length: int) -> int:
        """Return the most bytes that are kept where sequences of a length are used so many times, all together."""
        return min(self.most_kept_bytes, uses // self.uses_to_keep * length * self.token_bytes)
