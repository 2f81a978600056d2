"""Settings of a config that say how many channels an FFN has, found by what they change."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from core.engine.models.tracing.differential import Change, Differential
from core.engine.models.tracing.unit_axes import BlockCut

_FACTORS: Final = (1, 2, 3, 4)
"""Numbers that a config may have for each channel: 2 where it counts those of a gate too."""


@dataclass(frozen=True)
class WidthSetting:
    """A setting that is `factor` times the number of channels, once `others` have these values."""

    key: str
    factor: int = 1
    others: Mapping[str, bool] = field(default_factory=dict)

    def of(self, channels: int) -> dict[str, int]:
        """Return the settings of so many channels."""
        return {**self.others, self.key: self.factor * channels}


def width_settings(
    cut: BlockCut, small: Differential, real: Differential
) -> Iterator[tuple[WidthSetting, frozenset[Change]]]:
    """Yield the settings that are the number of channels, with all that one channel more changes in the small copy.

    At the small copy's widths and at the real ones, fewer channels must leave as much to be read.
    """
    channels = cut.units.units
    for setting in _candidates(cut, small):
        changes = small.changes(setting.of(channels + 1))
        if isinstance(changes, str) or not cut.reading(1) <= changes:
            continue
        if _says(setting, cut, small, channels) and _says(setting, cut, real, cut.reads(real.shapes)):
            yield setting, changes


def _candidates(cut: BlockCut, small: Differential) -> Iterator[WidthSetting]:
    """Yield settings that have the right value, the likeliest first: alone, then with one that is turned on or off."""
    channels = cut.units.units
    values = small.integers | {
        name: value[0]
        for name, value in small.config.to_dict().items()
        if isinstance(value, list) and value and all(type(each) is int and each == value[0] for each in value)
    }
    for factor in _FACTORS:
        yield from (WidthSetting(key, factor) for key, value in values.items() if value == factor * channels)
        if factor == 1:
            yield from (WidthSetting(key) for key in small.unset)
    weights = {name for name, _, _ in cut.reading(1)}
    for flag, value in small.config.to_dict().items():
        if isinstance(value, bool):
            changes = small.changes({flag: not value})
            if isinstance(changes, frozenset) and weights & {name for name, _, _ in changes}:
                settings = (WidthSetting(key, factor, {flag: not value}) for factor in _FACTORS for key in values)
                yield from (each for each in settings if small.changes(each.of(channels)) == frozenset())


def _says(setting: WidthSetting, cut: BlockCut, differential: Differential, channels: int) -> bool:
    """Return whether a setting says how many channels there are, of so many, as they get fewer."""
    if setting.others and differential.changes(setting.of(channels)) != frozenset():
        return False
    fewer = (differential.changes(setting.of(left)) for left in (channels // 2, channels // 8))
    lost = (channels // 2 - channels, channels // 8 - channels)
    return all(
        isinstance(each, frozenset) and cut.reading(more) <= each for more, each in zip(lost, fewer, strict=True)
    )
