"""Plan of the experts' bench: its rows, and which cells in which order. Loads no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_NO_REFIT = {"compensation": {"refit": 0}}
REAP, REFITTED, MERGED = "reap", "reap + refit", "merge + refit"
SHARES = {"25": 0.25, "50": 0.5}
"""Shares of each layer's experts that go."""
WEIGHTS = 0.5
"""Share of the weights that become zero."""
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


@dataclass(frozen=True)
class Row:
    """A method with its parameters; one that `drops` takes whole experts, others set weights to zero."""

    title: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    drops: bool = False


def _drop(title: str, **parameters: Any) -> Row:
    return Row(title, "expert-drop", parameters, drops=True)


ROWS = {
    each.title: each
    for each in (
        _drop("random", score="random", **_NO_REFIT),
        _drop("frequency", score="frequency", **_NO_REFIT),
        _drop(REAP, **_NO_REFIT),
        _drop("merge", merge=True, **_NO_REFIT),
        _drop(REFITTED),
        _drop(MERGED, merge=True),
        Row("magnitude", "magnitude"),
        Row("wanda", "wanda"),
        Row("sparsegpt", "sparsegpt"),
        Row("frontier", "frontier"),
    )
}


@dataclass(frozen=True)
class Pruning:
    """One pruning: names of row and share, none where weights become zero, and the seed of the calibration."""

    row: str
    share: str | None
    seed: int

    @property
    def title(self) -> str:
        what = f"{100 * WEIGHTS:g} % of the weights" if self.share is None else f"{self.share} % of the experts"
        return f"seed {self.seed}, {self.row}, {what}"


@dataclass(frozen=True)
class Plan:
    """Rows that are asked for, how many seeds drop experts, and how many set weights to zero, counted from 0."""

    rows: Sequence[str]
    seeds: int
    weight_seeds: int

    def prunings(self) -> Iterator[Pruning]:
        """Yield all cells: those of the first seed first."""
        for seed in range(max(self.seeds, self.weight_seeds)):
            for share in SHARES if seed < self.seeds else ():
                yield from (Pruning(row, share, seed) for row in self.rows if ROWS[row].drops)
            if seed < self.weight_seeds:
                yield from (Pruning(row, None, seed) for row in self.rows if not ROWS[row].drops)
