"""Rows of the report on the experts that are left of a mixture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FittedRouting:
    """The routing of the calibration tokens in one decoder layer: how many reach each expert, dense and what is left.

    `error` and `refitted` are ‖Y − Ŷ‖/‖Y‖ of what the experts give, before their refit and after, on the tokens held
    aside, or on all where none are; Y is what they are fitted to, so that 0 is the dense model's output.
    """

    tokens: tuple[int, ...]
    tokens_left: tuple[int, ...]
    error: float | None
    refitted: float | None


@dataclass(frozen=True)
class ExpertsLeftRow:
    """The experts that one decoder layer keeps, in the report: which, by what scores of all, and how they are reached.

    There are no scores where the choice was by chance, no routing where nothing was fitted. `kept` are numbers of the
    source; `routing` has the tokens that are left in their order.
    """

    name: str
    layer: int
    kept: tuple[int, ...]
    scores: tuple[float, ...]
    routing: FittedRouting | None = None

    @classmethod
    def saved(cls, row: Mapping[str, Any]) -> "ExpertsLeftRow":
        """Return a row from what JSON has of it."""
        routing = row["routing"]
        if routing is not None:
            routing = FittedRouting(
                tuple(routing["tokens"]), tuple(routing["tokens_left"]), routing["error"], routing["refitted"]
            )
        return cls(row["name"], row["layer"], tuple(row["kept"]), tuple(row["scores"]), routing)
