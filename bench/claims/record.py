"""Measurements of claims, each in a process of its own, and what they write down while they run."""

import importlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the measurement that the spec names as its `claim`, for its `seed` and `setting`."""
    record = Record()
    modules = [importlib.import_module(f"bench.claims.{name}") for name in ("classical", "language")]
    (work,) = (found for module in modules if (found := getattr(module, spec["claim"], None)) is not None)
    work(spec["seed"], spec["setting"], record)
    return record.figures()


class Record:
    """Points of curves and single figures; each is printed as it comes, so that the log tells how far a cell is."""

    def __init__(self) -> None:
        self._curves: dict[str, dict[str, list[tuple[float | str, float]]]] = defaultdict(lambda: defaultdict(list))
        self._facts: dict[str, float] = {}

    def point(self, panel: str, line: str, x: float | str, y: float) -> None:
        """One more point of a line."""
        print(panel, line, x, f"{y:.5g}", sep="  ", flush=True)
        self._curves[panel][line].append((x, float(y)))

    def fact(self, name: str, value: float) -> None:
        """A figure of no plot."""
        print(name, f"{value:.5g}", sep="  ", flush=True)
        self._facts[name] = float(value)

    def points(self, panel: str, line: str) -> list[tuple[float | str, float]]:
        """What a line has so far."""
        return list(self._curves[panel][line])

    def figures(self) -> dict[str, Any]:
        """As JSON, the form that `Run.of` reads."""
        return {"curves": self._curves, "facts": self._facts}


def knee(points: Sequence[tuple[float | str, float]], limit: float) -> float:
    """The largest sparsity up to which no value of (sparsity, value), in order, is above a limit; 0 where the first
    already is.
    """
    reached = 0.0
    for x, value in points:
        if value > limit:
            break
        reached = float(x)
    return reached
