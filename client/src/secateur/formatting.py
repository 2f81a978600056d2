"""Formats of figures for people."""

import re
from typing import Final

_OBEYED: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line end, the marks of writing direction, and halves of characters."""
_COUNTS: Final = ("", " k", " M", " G", " T")


def number(value: float | None) -> str:
    """Format a number with four digits; large ones with all digits before the decimal point."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Format seconds; from two minutes on, with minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{seconds:.1f} s" if seconds < 120 else f"{minutes} min {rest} s"


def percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def times(value: float | None) -> str:
    return "–" if value is None else f"× {value:.3g}"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def count(value: float | None) -> str:
    """Format a large number: 135 million as `134.5 M`."""
    if value is None:
        return "–"
    unit = 0
    while abs(value) >= 1000 and unit < len(_COUNTS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f}{_COUNTS[unit]}" if unit == 0 else f"{value:.1f}{_COUNTS[unit]}"


def share(value: float | None, stderr: float | None = None) -> str:
    """Format a share of questions or images, with its standard error."""
    return (percent(value) or "–") + (f" ± {stderr:.2%}" if stderr is not None else "")


def printable(text: str) -> str:
    """Escape, as JSON does, the characters of foreign text that a terminal obeys; tabs and line ends stay."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
