"""Recipe of the mixture of the experts' study. Loads no torch."""

from dataclasses import dataclass

LAYOUTS = ("qwen3-moe", "mixtral")
"""Families that the mixture is written as; the first is pruned."""
UPCYCLE_VERSION = 1
"""Raised where the same recipe would make another mixture than before."""


@dataclass(frozen=True)
class Recipe:
    """Recipe of a mixture.

    Each `every`-th layer becomes one of so many `experts`. Of each expert's channels a share of its own, 1 / experts,
    stays as it is; to the others normal `noise` is added, as a share of the deviation of the matrix. Routers and
    experts are then trained `steps` steps of `batch` sequences by AdamW, in bfloat16, on the loss of the next token
    and `balance` times the load-balancing loss of the family.
    """

    experts: int = 8
    top_k: int = 2
    every: int = 5
    noise: float = 0.3
    steps: int = 120
    batch: int = 2
    learning_rate: float = 3e-4
    router_learning_rate: float = 1e-3
    balance: float = 0.01
    seed: int = 0
