"""Parts of a report that a kind of removal adds: rows that count units, and panels of the picture of the layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

LAYER: Final = "layer"
"""Kind of the row of a removed layer. Rows of other kinds count units of a layer that stays."""


@dataclass(frozen=True)
class Points:
    """Points (position on the axis of layers, share): the state `before`, the part `removed`, or the state `after`."""

    label: str
    of: Literal["before", "removed", "after"]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class SharePanel:
    """Panel of shares in the picture of the layers; `label` is its axis label."""

    label: str
    series: Sequence[Points]


def unit_rows(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of a report's layers that count units or entire layers before and after."""
    return [row for row in layers if "before" in row]


def removed_layers(layers: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the removed layers of a report, by their numbers in the source model."""
    return [row["layer"] for row in unit_rows(layers) if row["kind"] == LAYER]


def counted_units(layers: Sequence[Mapping[str, Any]]) -> str:
    """Return in words how many units of each kind, and how many layers, were removed; empty where none was."""
    counts: dict[str, tuple[int, int]] = {}
    for row in unit_rows(layers):
        removed, all_ = counts.get(row["kind"], (0, 0))
        counts[row["kind"]] = removed + row["before"] - row["after"], all_ + row["before"]
    return ", ".join(
        f"{removed:,} layer{'s' if removed > 1 else ''}" if kind == LAYER else f"{removed:,} of {all_:,} {kind}"
        for kind, (removed, all_) in counts.items()
        if removed
    )
