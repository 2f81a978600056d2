"""Comparisons between the rows of the structured bench, of the figures there are. Loads no torch."""

import math
from collections.abc import Iterable
from statistics import fmean

from bench.judging_texts import IN_DOMAIN
from bench.structured.figures import Figures
from bench.structured.plan import FLAP, Row
from bench.structured.results import Results
from core.engine.architectures.description import ModelDescription, require_structure


class Ranking:
    """Comparisons of the rows there are results of, all of one model."""

    def __init__(self, results: Results, model: ModelDescription) -> None:
        self.results, self._model = results, model

    def ratio(self, row: str, target: str, text: str) -> float | None:
        """Mean perplexity over seeds ÷ the dense model's; None where it was not run."""
        figures, dense = self.results.of(row, target), self.results.dense
        return fmean(each.perplexity[text] for each in figures) / dense.perplexity[text] if figures and dense else None

    def excess(self, row: str, target: str, text: str) -> float | None:
        """Log of that ratio as a share of the better FLAP row's; None where one of them was not run."""
        own = self.ratio(row, target, text)
        others = [self.ratio(name, target, text) for name in self.results.rows(_is_flap)]
        known = [each for each in others if each is not None]
        return math.log(own) / math.log(min(known)) if own is not None and known else None

    def best(self, rows: Iterable[str], target: str, text: str = IN_DOMAIN) -> tuple[str, float] | None:
        """The row of least perplexity, and its ratio to the dense model."""
        ratios = {row: ratio for row in rows if (ratio := self.ratio(row, target, text)) is not None}
        return min(ratios.items(), key=lambda pair: pair[1]) if ratios else None

    def blocks_removed(self, figures: Figures) -> float:
        """The share of the blocks' parameters that is gone."""
        return (self._model.parameters - figures.parameters) / require_structure(self._model).parameters


def _is_flap(row: Row) -> bool:
    return row.method == FLAP
