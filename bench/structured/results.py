"""Figures of the structured bench: those that this machine measured, over those of others before. Loads no torch."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bench.structured.plan import ROWS, TARGETS, Pruning, Row

KEPT = Path(__file__).parent / "results.json"
"""File of the results that the page shows, for the machines and versions to come."""
_SAME_TEXTS = 1e-3
"""Relative difference of the dense model's perplexity up to which two machines judged by the same texts."""
Answers = dict[str, dict[str, float]]
"""Accuracies of each zero-shot task, with their standard errors, and how many questions there were."""


@dataclass(frozen=True)
class Origin:
    """Origin of a cell's figures: the machine and its threads, the releases, and a digest of the code that pruned."""

    machine: str
    threads: int
    releases: str
    code: str


@dataclass(frozen=True)
class Figures:
    """Figures of one cell: `seconds` of choosing and cutting, `recovery_seconds` of training; `processor_seconds` and
    `peak_bytes` are of the processes that did it, `parameters` count all of the model that came out, tied ones once.
    """

    seconds: float
    recovery_seconds: float | None
    processor_seconds: float
    peak_bytes: int
    parameters: int
    perplexity: dict[str, float]
    config: dict[str, Any]
    notes: list[str]
    measured: str
    origin: Origin

    def is_of_the_same_model(self, other: "Figures") -> bool:
        """Return whether both are of one pruned model, as far as parameters and perplexity tell."""
        return self.parameters == other.parameters and self.perplexity == other.perplexity


@dataclass(frozen=True)
class Dense:
    """The model before, judged as those that were pruned."""

    parameters: int
    perplexity: dict[str, float]


@dataclass(frozen=True)
class Ratio:
    """Pruned ÷ dense of milliseconds: the median over rounds, and their interquartile range."""

    ratio: float
    spread: float


@dataclass
class Results:
    """Figures, latency and answers by cell; of answers, those under None are the dense model's."""

    dense: Dense | None = None
    found: dict[Pruning, Figures] = field(default_factory=dict)
    latency: dict[Pruning, dict[str, Ratio]] = field(default_factory=dict)
    answers: dict[Pruning | None, Answers] = field(default_factory=dict)

    def of(self, row: str, target: str) -> list[Figures]:
        """Return the figures of all seeds there are, in order."""
        cells = (pruning for pruning in self.found if (pruning.row, pruning.target) == (row, target))
        return [self.found[pruning] for pruning in sorted(cells, key=lambda pruning: pruning.seed)]

    def rows(self, fits: Callable[[Row], bool] = lambda row: True) -> list[str]:
        """Return the names of the rows of a kind that there are figures of, in the plan's order."""
        return [name for name, row in ROWS.items() if fits(row) and any(pruning.row == name for pruning in self.found)]

    def targets(self) -> list[str]:
        """Return the names of the targets that there are figures of, in the plan's order."""
        return [name for name in TARGETS if any(pruning.target == name for pruning in self.found)]

    def over(self, older: "Results") -> "Results":
        """Return these results, and the older ones of cells that are not among them.

        Older seeds of a row that was measured again are taken where the same code measured them, older times and
        answers of a cell where the same model came out. Nothing older is taken where the dense model has another
        perplexity: then the model or the texts were others.
        """
        if not _are_alike(self.dense, older.dense):
            return self
        codes = {(pruning.row, pruning.target): figures.origin.code for pruning, figures in self.found.items()}
        found = {
            pruning: figures
            for pruning, figures in older.found.items()
            if codes.get((pruning.row, pruning.target), figures.origin.code) == figures.origin.code
        } | self.found

        def holds(pruning: Pruning | None) -> bool:
            if pruning is None:
                return True
            now, before = found.get(pruning), older.found.get(pruning)
            return now is not None and before is not None and now.is_of_the_same_model(before)

        return Results(
            self.dense or older.dense,
            found,
            {pruning: each for pruning, each in older.latency.items() if holds(pruning)} | self.latency,
            {pruning: each for pruning, each in older.answers.items() if holds(pruning)} | self.answers,
        )


class _Cell(BaseModel):
    """A cell as the file has it."""

    row: str
    target: str
    seed: int
    figures: Figures
    latency: dict[str, Ratio] | None = None
    answers: Answers | None = None


class _File(BaseModel):
    """The file of what is kept."""

    dense: Dense | None = None
    answers: Answers | None = None
    cells: list[_Cell] = []


def read_results(file: Path = KEPT) -> Results:
    """Return what a file keeps, but for rows and targets that the bench has no more; nothing where there is no file."""
    kept = _File.model_validate_json(file.read_bytes()) if file.is_file() else _File()
    cells = {
        Pruning(each.row, each.target, each.seed): each
        for each in kept.cells
        if each.row in ROWS and each.target in TARGETS
    }
    answers: dict[Pruning | None, Answers] = {pruning: each.answers for pruning, each in cells.items() if each.answers}
    return Results(
        kept.dense,
        {pruning: each.figures for pruning, each in cells.items()},
        {pruning: each.latency for pruning, each in cells.items() if each.latency},
        answers | ({None: kept.answers} if kept.answers else {}),
    )


def write_results(results: Results, file: Path = KEPT) -> None:
    """Keep results in a file, but for the shapes of models, which nothing but timing them reads."""
    places = {each: place for place, each in enumerate((*TARGETS, *ROWS))}
    in_order = sorted(results.found, key=lambda pruning: (places[pruning.target], places[pruning.row], pruning.seed))
    cells = [
        _Cell(
            row=pruning.row,
            target=pruning.target,
            seed=pruning.seed,
            figures=replace(results.found[pruning], config={}),
            latency=results.latency.get(pruning),
            answers=results.answers.get(pruning),
        )
        for pruning in in_order
    ]
    kept = _File(dense=results.dense, answers=results.answers.get(None), cells=cells)
    file.write_text(
        json.dumps(kept.model_dump(mode="json", exclude_defaults=True), indent=1, ensure_ascii=False) + "\n"
    )


def _are_alike(one: Dense | None, other: Dense | None) -> bool:
    """Return whether two dense models were judged as one and the same; true where one is not known."""
    if one is None or other is None:
        return True
    return one.perplexity.keys() == other.perplexity.keys() and all(
        math.isclose(one.perplexity[text], other.perplexity[text], rel_tol=_SAME_TEXTS) for text in one.perplexity
    )
