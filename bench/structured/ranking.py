"""Comparisons between the rows of the structured bench, of the figures there are. Loads no torch."""

import math
from collections.abc import Callable, Iterable
from statistics import fmean

from bench.judging_texts import IN_DOMAIN
from bench.structured.figures import Figures
from bench.structured.plan import FLAP, ROWS, Cell, Row
from bench.structured.running import Bench
from core.engine.options.width_counts import require_structure


class Ranking:
    """Comparisons of a bench's rows."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def figures(self, row: str, target: str) -> list[Figures]:
        """Return the figures of all seeds there are, in order."""
        cells = (Cell(row, target, seed) for seed in range(self._bench.plan.seeds))
        return [self._bench.found[cell] for cell in cells if cell in self._bench.found]

    def ratio(self, row: str, target: str, text: str) -> float | None:
        """Mean perplexity over seeds ÷ the dense model's; None where it was not run."""
        figures, dense = self.figures(row, target), self._bench.dense
        return fmean(each.perplexity[text] for each in figures) / dense.perplexity[text] if figures and dense else None

    def excess(self, row: str, target: str, text: str) -> float | None:
        """Log of that ratio as a share of the better FLAP row's; None where one of them was not run."""
        own, others = self.ratio(row, target, text), [self.ratio(name, target, text) for name in self.named(_is_flap)]
        known = [each for each in others if each is not None]
        return math.log(own) / math.log(min(known)) if own is not None and known else None

    def best(self, rows: Iterable[str], target: str, text: str = IN_DOMAIN) -> tuple[str, float] | None:
        """The row of least perplexity, and its ratio to the dense model."""
        ratios = {row: ratio for row in rows if (ratio := self.ratio(row, target, text)) is not None}
        return min(ratios.items(), key=lambda pair: pair[1]) if ratios else None

    def named(self, fits: Callable[[Row], bool]) -> list[str]:
        """The plan's rows of a kind."""
        return [row for row in self._bench.plan.rows if fits(ROWS[row])]

    def blocks_removed(self, figures: Figures) -> float:
        """The share of the blocks' parameters that is gone."""
        description = self._bench.ground.description
        return (description.parameters - figures.parameters) / require_structure(description).parameters


def _is_flap(row: Row) -> bool:
    return row.method == FLAP
