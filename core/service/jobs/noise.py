"""Measurement noise of job figures: the largest difference between two figures that counts as none."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import hypot
from typing import Final

from pydantic import JsonValue

from secateur_wire.metrics import latency_noise

SAME_SHARE: Final = 5e-4
"""Largest difference between two equal shares, such as sparsities: half a tenth of a per cent."""
ROUNDING: Final = 1e-4
"""Largest relative difference between two equal computed figures, which is due to rounding."""
_OF_ERROR: Final = "ratio_stderr"
_OF_ANSWERS: Final = "answers."
_OF_NOISE: Final = frozenset(
    f"latency.{name}" for name in ("spread", "dense_spread", "decode_spread", "decode_dense_spread", "noise")
)
_SHARES: Final = frozenset({"sparsity.prunable", "sparsity.model"})


def is_same(values: Sequence[float | None], noise: float = ROUNDING) -> bool:
    """Return whether figures are equal within a noise relative to the largest; a missing figure counts as different."""
    known = [value for value in values if value is not None]
    if len(known) != len(values):
        return not known
    return max(known) - min(known) <= noise * max(map(abs, known))


def is_same_share(values: Sequence[float | None]) -> bool:
    """Return whether shares are equal within their resolution; missing shares are ignored."""
    known = [value for value in values if value is not None]
    return not known or max(known) - min(known) <= SAME_SHARE


def differs_beyond_errors(values: Sequence[float], errors: Sequence[float | None]) -> bool:
    """Return whether two figures differ by more than their standard errors; without an error, by more than rounding."""
    known = [each for each in errors if each]
    if len(known) < len(values):
        return not is_same(values)
    return any(abs(values[a] - values[b]) > hypot(known[a], known[b]) for a, b in combinations(range(len(values)), 2))


def differs_measurably(name: str, documents: Sequence[Mapping[str, JsonValue]]) -> bool:
    """Return whether a figure, given by its dotted name, differs between jobs by more than its measurement noise."""
    values = [document.get(name) for document in documents]
    if all(value == values[0] for value in values[1:]):
        return False
    if name in _OF_NOISE or name.endswith(_OF_ERROR) or (name.startswith(_OF_ANSWERS) and name.endswith("stderr")):
        return False
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return True
    if name in _SHARES:
        return not is_same_share(numbers)
    if name.startswith("latency.") and name.endswith("_ms"):
        spread = "latency.decode_spread" if name.startswith("latency.decode") else "latency.spread"
        return not is_same(numbers, max(_latency_noise(document, spread) for document in documents))
    if all(isinstance(value, int) for value in numbers):
        return True
    return differs_beyond_errors(numbers, [_error(document, name) for document in documents])


def _latency_noise(document: Mapping[str, JsonValue], name: str) -> float:
    spread = document.get(name, document.get("latency.spread"))
    return latency_noise(float(spread) if isinstance(spread, int | float) else None)


def _error(document: Mapping[str, JsonValue], name: str) -> float:
    """Return the standard error stored next to a figure; 0 where there is none."""
    if name.startswith("perplexity.") and name.endswith(".pruned"):
        text = name.removesuffix(".pruned")
        error, dense = document.get(f"{text}.ratio_stderr"), document.get(f"{text}.dense")
        return float(error) * float(dense) if isinstance(error, int | float) and isinstance(dense, int | float) else 0.0
    error = document.get(f"{name}_stderr")
    return float(error) if isinstance(error, int | float) else 0.0
