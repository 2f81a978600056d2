"""Figures of dense models that one job measured and others reuse, so that equal measurements are made only once.

A figure carries every fact that it depends on. It is reused only if all facts are equal.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

DenseKind = Literal["perplexity", "accuracy", "task"]
Facts = dict[str, str | int | None]


class DenseFigure(BaseModel):
    """Figures of a dense model that `job` measured on one evaluation set or task.

    `facts` are: the model's revision, the set's hash, how much of it was read and how, dtype, kind of device, and
    versions of the libraries that computed the figure. `window_losses` are the mean losses of a perplexity's windows,
    in nats; they are empty for other kinds.
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
        """Return a baseline with the others added; if two have equal facts, the first stays."""
        added: list[DenseFigure] = list(self.figures)
        for other in others:
            if not any(each.kind == other.kind and each.facts == other.facts for each in added):
                added.append(other)
        return KnownDenseFigures(figures=tuple(added))
