"""Sizes in bytes as people read them, the same on the command line and in the portal."""

from typing import Final

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def size(value: float | None) -> str:
    """Format bytes in powers of 1000: 134.5 MB; a dash for None."""
    if value is None:
        return "–"
    unit = 0
    while abs(value) >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"
