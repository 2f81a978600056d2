"""Comparisons between the rows of the structured bench, and its goals, of the figures there are. Loads no torch.

Goals are shown beside what came out; nothing is asserted by them.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.judging_texts import IN_DOMAIN, OUT_OF_DOMAIN
from bench.page import table
from bench.structured.plan import FLAP, FRONTIER, TARGETS, Pruning, Row
from bench.structured.results import Figures, Results
from core.engine.architectures.description import ModelDescription, require_structure

_RATIOS = {
    "uniform, one shot": {"20": 1.5, "30": 2.0, "50": 3.2},
    "per_layer, one shot": {"20": 1.4, "30": 1.75, "50": 2.8},
    "distilled": {"20": 1.25, "30": 1.5, "50": 2.2},
}
_OUTSIDE = {"one shot": 1.8, "distilled": 1.5}
"""At 20 % of the blocks."""
_EXCESS = {IN_DOMAIN: 0.6, OUT_OF_DOMAIN: 0.75}
_LATENCY_MARGIN = 0.05


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


@dataclass(frozen=True)
class Goal:
    """A figure that was to be at most `limit`: `value` is what came out, of `row`; None where nothing was run."""

    title: str
    limit: float
    value: float | None
    row: str

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "–"
        return "yes" if self.value <= self.limit else "no"


def goals(ranking: Ranking) -> list[Goal]:
    """All of them, of the targets there are results of."""
    return [*_perplexities(ranking), *_against_flap(ranking), *_latencies(ranking)]


def goals_table(found: Sequence[Goal]) -> str:
    rows = [
        [each.title, each.row, f"≤ {each.limit:.2f}", "–" if each.value is None else f"{each.value:.2f}", each.verdict]
        for each in found
    ]
    return table(["goal", "best row", "was to be", "is", "reached"], rows)


def _is(kind: str, row: Row) -> bool:
    """Return whether a row is the frontier's, distilled or of that layout."""
    if row.method != FRONTIER:
        return False
    if kind == "distilled":
        return row.distils and not row.label_weight
    return not row.distils and kind.removesuffix("one shot").rstrip(", ") in ("", row.layout)


def _perplexities(ranking: Ranking) -> Iterator[Goal]:
    for kind, limits in _RATIOS.items():
        for target, limit in limits.items():
            yield from _goal(ranking, kind, target, IN_DOMAIN, limit)
    for kind, limit in _OUTSIDE.items():
        yield from _goal(ranking, kind, "20", OUT_OF_DOMAIN, limit)


def _goal(ranking: Ranking, kind: str, target: str, text: str, limit: float) -> Iterator[Goal]:
    if target in ranking.results.targets():
        best = ranking.best(ranking.results.rows(lambda row: _is(kind, row)), target, text)
        title = f"{kind}, {TARGETS[target].title}, {text}: ÷ dense"
        yield Goal(title, limit, best[1] if best else None, best[0] if best else "")


def _against_flap(ranking: Ranking) -> Iterator[Goal]:
    """Yield the goals of the best row that is not trained, against the best of all other rows."""
    one_shot = ranking.results.rows(lambda row: _is("one shot", row))
    for target in ranking.results.targets():
        for text, limit in _EXCESS.items():
            best = ranking.best(one_shot, target, text)
            value = ranking.excess(best[0], target, text) if best else None
            title = f"one shot, {TARGETS[target].title}, {text}: excess ÷ the better flap's"
            yield Goal(title, limit, value, best[0] if best else "")
        others = ranking.best(ranking.results.rows(lambda row: row.method != FRONTIER), target)
        best = ranking.best(one_shot, target)
        if others:
            title = f"one shot, {TARGETS[target].title}, in domain: ÷ dense, ahead of {others[0]}"
            yield Goal(title, others[1], best[1] if best else None, best[0] if best else "")


def _latencies(ranking: Ranking) -> Iterator[Goal]:
    """Yield the goals of the frontier's rows: no more time than the share of parameters that is left, and a little."""
    dense = ranking.results.dense
    for row in ranking.results.rows(lambda row: _is("one shot", row)):
        for target in ranking.results.targets():
            figures, latency = ranking.results.of(row, target), ranking.results.latency.get(Pruning(row, target, 0), {})
            if figures and dense:
                limit = fmean(each.parameters for each in figures) / dense.parameters + _LATENCY_MARGIN
                for name, each in latency.items():
                    yield Goal(f"{TARGETS[target].title}: {name} ÷ dense", limit, each.ratio, row)
