"""Choices of families and ways to treat them: those tried in every run, and those nightly."""

from collections.abc import Sequence

import pytest

Way = str | tuple[str, ...]


def crossed(
    names: str, families: Sequence[Way], ways: Sequence[Way], in_every_run: Sequence[Way] = ()
) -> pytest.MarkDecorator:
    """Return the parameters `names`, a family and a way: those where a family meets the way whose turn it is in every
    run, the other pairs nightly. Where there are fewer families than ways, they go round until every way came once.
    `in_every_run`: the families that take turns, where not all do.
    """
    taking = in_every_run or families
    turns = {(taking[turn % len(taking)], ways[turn % len(ways)]) for turn in range(max(len(taking), len(ways)))}
    return pytest.mark.parametrize(
        names,
        [
            pytest.param(
                family, way, marks=() if (family, way) in turns else pytest.mark.nightly, id=f"{_id(family)}-{_id(way)}"
            )
            for family in families
            for way in ways
        ],
    )


def partly(name: str, values: Sequence[str], in_every_run: Sequence[str]) -> pytest.MarkDecorator:
    """Return the parameter `name` with some of its values in every run, with the others nightly."""
    assert set(in_every_run) <= set(values), in_every_run
    return pytest.mark.parametrize(
        name, [pytest.param(each, marks=() if each in in_every_run else pytest.mark.nightly) for each in values]
    )


def _id(way: Way) -> str:
    return way if isinstance(way, str) else "-".join(way)
