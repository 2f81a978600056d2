"""Catalogue of methods as a page shows it: grouped by their result, then sorted by their needs."""

from dataclasses import dataclass
from functools import cache
from typing import Final

from core.methods.method_info import MethodInfo
from core.methods.registry import METHODS

NEEDS: Final = ("no data", "forward passes", "gradients", "training")
"""Needs of a method besides the weights; each need includes the ones before it."""
_GROUPS: Final = (
    (
        ("unstructured", "n:m"),
        "Unstructured and semi-structured",
        "Single weights become zero, anywhere or by a pattern n:m such as 2:4 (2 of every 4 neighbouring weights "
        "stay). The model keeps its shape.",
    ),
    (
        ("unstructured",),
        "Unstructured, with retraining",
        "Single weights become zero anywhere, and the others are trained in between.",
    ),
    (("structured",), "Structured", "Whole heads, channels, filters or layers are removed. The model gets smaller."),
    (
        (),
        "Without pruning",
        "Store a model in other forms, train one that was pruned before, or measure what the layers can lose.",
    ),
)
"""Groups by the patterns for which a method has the same result."""


@dataclass(frozen=True)
class MethodCard:
    """A method, and those of `NEEDS` that it has."""

    info: MethodInfo
    level: int

    @property
    def needs(self) -> str:
        return NEEDS[self.level]


@dataclass(frozen=True)
class MethodGroup:
    """Methods with the same kind of result.

    `gains` is the benefit on hardware, None where it differs among them. Methods in `others` have this result with
    another pattern than that of their own card.
    """

    title: str
    text: str
    cards: tuple[MethodCard, ...]
    others: tuple[MethodInfo, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(card.info.id for card in self.cards)

    @property
    def gains(self) -> str | None:
        different = {card.info.gains for card in self.cards}
        return different.pop() if len(different) == 1 else None


@cache
def method_groups() -> tuple[MethodGroup, ...]:
    """Return every method of the catalogue, each in one of the groups."""
    return tuple(
        MethodGroup(title, text, tuple(sorted(_cards(patterns), key=lambda card: card.level)), _others(patterns))
        for patterns, title, text in _GROUPS
    )


def _cards(patterns: tuple[str, ...]) -> list[MethodCard]:
    return [MethodCard(each, _level(each)) for each in METHODS.values() if each.shared_patterns == patterns]


def _others(patterns: tuple[str, ...]) -> tuple[MethodInfo, ...]:
    return tuple(each for each in METHODS.values() if any(pattern in each.variants for pattern in patterns))


def _level(method: MethodInfo) -> int:
    if method.needs.training:
        return 3
    if method.needs.gradients:
        return 2
    return 1 if method.needs.calibration or method.measures else 0
