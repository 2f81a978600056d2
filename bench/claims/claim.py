"""A claim: what is measured, the questions asked of the figures, written before the run, and how answers are judged."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

FEWEST_SEEDS = 3


class Verdict(StrEnum):
    """How a question, or a whole claim, is decided."""

    HOLDS = "holds"
    FAILS = "does not hold here"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Run:
    """The figures of one seed. `curves[panel][line]` are points (x, y), x a number or a name; `facts` are numbers by
    name, and of no plot.
    """

    curves: Mapping[str, Mapping[str, Sequence[tuple[float | str, float]]]]
    facts: Mapping[str, float]

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> "Run":
        """From what a cell wrote."""
        curves = {
            panel: {line: [(x, y) for x, y in points] for line, points in lines.items()}
            for panel, lines in figures["curves"].items()
        }
        return cls(curves, figures["facts"])

    def value(self, panel: str, line: str, x: float | str) -> float:
        """A line's value at a point that was measured."""
        return dict(self.curves[panel][line])[x]

    def mean(self, panel: str, line: str, xs: Sequence[float | str]) -> float:
        """A line's mean over points that were measured."""
        return sum(self.value(panel, line, x) for x in xs) / len(xs)


@dataclass(frozen=True)
class Part:
    """A question, which stands on the page, and the expression that answers it by the figures of a seed."""

    question: str
    holds: str

    def answer(self, run: Run) -> bool:
        """Return the answer; the expression is one of this package's own."""
        names = {"value": run.value, "mean": run.mean, "facts": run.facts, "curves": run.curves}
        return bool(eval(self.holds, names))

    def verdict(self, runs: Sequence[Run]) -> Verdict:
        """Holds where every seed says yes, does not where none does; with fewer than FEWEST_SEEDS inconclusive."""
        answers = [self.answer(run) for run in runs]
        if len(answers) < FEWEST_SEEDS or len(set(answers)) > 1:
            return Verdict.INCONCLUSIVE
        return Verdict.HOLDS if answers[0] else Verdict.FAILS


@dataclass(frozen=True)
class Panel:
    """How one set of curves is drawn: bars where x is a name, else lines."""

    key: str
    title: str
    x: str
    y: str
    is_logarithmic: bool = False


@dataclass(frozen=True)
class Claim:
    """`name` is that of its measurement, `setting` what this is given besides the seed; `setup` says on the page what
    is done. `is_alone`: it measures time, so that nothing may run beside it. `reads` are 'digits', 'fashion-mnist',
    'language' or 'judge'.
    """

    name: str
    title: str
    papers: tuple[str, ...]
    setup: str
    setting: Mapping[str, Any]
    parts: tuple[Part, ...]
    panels: tuple[Panel, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    reads: tuple[str, ...] = ()
    is_alone: bool = False

    def verdict(self, runs: Sequence[Run]) -> Verdict:
        """Holds where every part does; does not where any part does not; else inconclusive."""
        verdicts = {part.verdict(runs) for part in self.parts}
        if Verdict.FAILS in verdicts:
            return Verdict.FAILS
        return Verdict.HOLDS if verdicts == {Verdict.HOLDS} else Verdict.INCONCLUSIVE


def read_claims() -> tuple[Claim, ...]:
    """Return the claims in the order of the page; claim n is the n-th."""
    found = []
    for table in tomllib.loads(Path(__file__).with_name("claims.toml").read_text("utf-8"))["claim"]:
        parts, panels = [Part(**each) for each in table.pop("parts")], [Panel(**each) for each in table.pop("panels")]
        several: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in table.items()
        }
        found.append(Claim(**several, parts=tuple(parts), panels=tuple(panels)))
    return tuple(found)


CLAIMS = read_claims()
