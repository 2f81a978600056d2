"""Models at a measured speed: what they lose, and that against the best of today at equal time. Loads no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import log
from statistics import fmean
from typing import Final

from bench.cells import Figures
from bench.page import MISSING, summary
from bench.service import HANDBOOK
from bench.study_page import Name, Results
from worker.samples.language import EVALUATION

_TEXTS: Final = (EVALUATION, HANDBOOK)
_BEST: Final = "frontier per layer"
_GOAL: Final = 0.85
_HEADER: Final = [
    "row",
    "asked",
    "decode ÷ dense",
    "tokens/s",
    *(f"bits per byte, {text}" for text in _TEXTS),
    *(f"excess, {text}" for text in _TEXTS),
]
Rows = tuple[list[str], list[list[str]]]
"""Header and rows of a table."""


@dataclass(frozen=True)
class Point:
    """A model in an engine: tokens per second and the dense model's, and what it loses on each text."""

    rate: float
    dense_rate: float
    bits: tuple[float, ...]
    excess: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Return decode time ÷ the dense model's."""
        return self.dense_rate / self.rate


def point(figures: Figures, form: str) -> Point | None:
    """Return the point of a job in the engine of files of a form; None where its file was not timed."""
    texts = [figures["metrics"]["perplexity"][text] for text in _TEXTS]
    bits = tuple(each["bits_per_byte"]["pruned"] for each in texts)
    excess = tuple(log(each["pruned"] / each["dense"]) for each in texts)
    for file in figures["metrics"]["exports"]:
        if file["format"] == form:
            if speed := file.get("speed"):
                return Point(speed["decode"]["pruned"], speed["decode"]["dense"], bits, excess)
            if own := file.get("own_speed"):
                return Point(own["decode"], own["decode"], bits, excess)
    return None


def excess_at(curve: Sequence[Point], ratio: float, text: int) -> float | None:
    """Return the excess log-perplexity of a row at a ratio, on straight lines between its points; None outside them.

    The dense model, which loses nothing at 1, is a point of every row.
    """
    known = sorted([(1.0, 0.0), *((each.ratio, each.excess[text]) for each in curve)])
    for (low, at_low), (high, at_high) in pairwise(known):
        if low <= ratio <= high and high > low:
            return at_low + (at_high - at_low) * (ratio - low) / (high - low)
    return None


def _points(results: Results, form: str, engine: str) -> dict[Name, Point]:
    names = [name for names in results.groups({"engine": ["", engine]}) for name in names]
    every = {name: point(results.found[name], form) for name in names}
    return {name: each for name, each in every.items() if each is not None}


def _models(form: str, engine: str, results: Results) -> Rows:
    """Return each model: how fast it is, and what it loses."""
    placed, rows = _points(results, form, engine), []
    for row, ratio in dict.fromkeys(_place(name) for name in placed):
        own = [each for name, each in placed.items() if _place(name) == (row, ratio)]
        columns = [[each.bits[text] for each in own] for text in range(len(_TEXTS))]
        columns += [[each.excess[text] for each in own] for text in range(len(_TEXTS))]
        rows.append(
            [
                row,
                ratio if row.startswith("search") else MISSING,
                summary([each.ratio for each in own], ".3f"),
                summary([each.rate for each in own], ".1f"),
                *(summary(each, ".3f") for each in columns),
            ]
        )
    return _HEADER, rows


def _at_equal_time(form: str, engine: str, results: Results) -> Rows:
    """Return the excess of the searches ÷ that of today's best at the same measured decode time, by seed."""
    placed, rows = _points(results, form, engine), []
    for row, ratio in dict.fromkeys(_place(name) for name in placed if _place(name)[0].startswith("search")):
        quotients: list[list[float]] = [[] for _ in _TEXTS]
        for name, each in placed.items():
            if _place(name) != (row, ratio):
                continue
            curve = [point for other, point in placed.items() if _place(other)[0] == _BEST and other.seed == name.seed]
            for text, quotient in enumerate(quotients):
                if best := excess_at(curve, each.ratio, text):
                    quotient.append(each.excess[text] / best)
        if any(quotients):
            cells = [summary(each, ".2f") if each else MISSING for each in quotients]
            worst = max(fmean(each) for each in quotients if each)
            rows.append([f"{row}, {ratio}", "yes" if worst <= _GOAL else "no", *cells])
    return [f"excess ÷ that of {_BEST} at equal time", f"≤ {_GOAL}", *_TEXTS], rows


def _place(name: Name) -> tuple[str, str]:
    own: Mapping[str, str] = dict(name.choices)
    return own["row"], own["ratio"]


in_llama_cpp, in_openvino = partial(_models, "gguf", "llama-cpp"), partial(_models, "openvino", "openvino")
at_equal_time_in_llama_cpp = partial(_at_equal_time, "gguf", "llama-cpp")
at_equal_time_in_openvino = partial(_at_equal_time, "openvino", "openvino")
