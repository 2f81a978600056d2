"""Panel of the picture of the layers for the removal of experts: each expert's share of the tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from core.engine.cuts.report import Points, SharePanel

SECTION: Final = "experts"
"""Section of the report with a row for each layer that lost experts."""


def token_panels(rows: Sequence[Mapping[str, Any]]) -> list[SharePanel]:
    """Return a panel of each expert's share of its layer's tokens; none where nothing was fitted.

    `rows` are the rows of the section. Shares before are left of the layer's position, shares after are right of it.
    """
    kept: list[tuple[float, float]] = []
    removed: list[tuple[float, float]] = []
    after: list[tuple[float, float]] = []
    routed = [row for row in rows if row["routing"] is not None]
    for row in routed:
        for expert, share in enumerate(_shares(row["routing"]["tokens"])):
            (kept if expert in row["kept"] else removed).append((row["layer"] - 0.2, share))
        after += [(row["layer"] + 0.2, share) for share in _shares(row["routing"]["tokens_left"])]
    series = (
        Points("before, stays", "before", kept),
        Points("before, goes", "removed", removed),
        Points("after", "after", after),
    )
    return [SharePanel("tokens of an expert", series)] if routed else []


def _shares(tokens: Sequence[int]) -> list[float]:
    return [each / max(sum(tokens), 1) for each in tokens]
