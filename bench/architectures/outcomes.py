"""Outcomes of a type's cells: offered, refused, failed or wrong."""

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

Capability: TypeAlias = Literal[
    "opens", "unstructured", "n:m", "channels", "heads", "per layer", "layers", "experts", "rows"
]
CAPABILITIES: Final[tuple[Capability, ...]] = (
    "opens",
    "unstructured",
    "n:m",
    "channels",
    "heads",
    "per layer",
    "layers",
    "experts",
    "rows",
)
"""Things tried of each type.

`per layer`: the channels, and heads where they go, of all layers but the first. `rows`: those of most tokens, in
embeddings and head; they are tried of a type that does not open too.
"""
STRUCTURED: Final[tuple[Capability, ...]] = ("channels", "heads", "per layer")

Status: TypeAlias = Literal["yes", "refused", "failed", "unbuilt", "wrong"]
_WORST_FIRST: Final[tuple[Status, ...]] = ("wrong", "failed", "unbuilt", "refused", "yes")


@dataclass(frozen=True)
class Outcome:
    """One cell.

    `yes`: every check passed. `refused`: the service says that it does not offer it.
    `failed`: a job on it ends with an error. `unbuilt`: transformers does not build, run or save the model itself.
    `wrong`: the service gives a result that is not what it should be, and does not notice.
    `difference`: the largest of logits that should be equal to the bit; 0 where it is not measured.
    """

    status: Status
    reason: str = ""
    stage: str = ""
    difference: float = 0.0


@dataclass(frozen=True)
class TypeOutcomes:
    """All cells of a type; `listed`: its architecture is declared and not discovered."""

    model_type: str
    listed: bool
    has_experts: bool
    seconds: float
    cells: dict[Capability, Outcome]

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "TypeOutcomes":
        """Return the outcomes that were kept as a dictionary."""
        cells = {capability: Outcome(**stored["cells"][capability]) for capability in CAPABILITIES}
        return cls(**stored | {"cells": cells})


def worst(outcomes: list[Outcome]) -> Outcome:
    """Return the worst of some outcomes."""
    return min(outcomes, key=lambda outcome: (_WORST_FIRST.index(outcome.status), -outcome.difference))
