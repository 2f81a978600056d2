"""What a measurement writes down while it runs."""

from collections import defaultdict
from typing import Any


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
