"""Figures of dense models that one job measured and others reuse: equal measurements are made once.

A figure carries every fact it depends on, and is taken only where all of them are the same.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

DenseKind = Literal["perplexity", "accuracy", "task"]
Facts = dict[str, str | int | None]


class DenseFigure(BaseModel):
    """Figures that `job` measured of a dense model on one evaluation set or task.

    `facts`: the model's revision, the set's hash, how much of it was read and how, dtype, kind of device, and releases
    of the libraries that computed it. `window_losses` are a perplexity's mean losses of its windows (nats), empty for
    other kinds.
    """

    model_config = ConfigDict(frozen=True)

    kind: DenseKind
    name: str
    facts: Facts
    values: dict[str, float | int]
    window_losses: tuple[float, ...] = ()
    job: str


class KnownDenseFigures(BaseModel):
    """Figures that are known when a job begins."""

    model_config = ConfigDict(frozen=True)

    figures: tuple[DenseFigure, ...] = ()

    def find(self, kind: DenseKind, facts: Mapping[str, Any]) -> DenseFigure | None:
        """Return the figure with exactly these facts."""
        return next((each for each in self.figures if each.kind == kind and each.facts == facts), None)

    def with_figures(self, others: Iterable[DenseFigure]) -> "KnownDenseFigures":
        """Return a baseline with the others added, except those whose facts are there: the first measurement stays."""
        added: list[DenseFigure] = list(self.figures)
        for other in others:
            if not any(each.kind == other.kind and each.facts == other.facts for each in added):
                added.append(other)
        return KnownDenseFigures(figures=tuple(added))
