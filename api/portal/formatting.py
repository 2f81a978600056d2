"""Template filters that format figures for people."""

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from secateur_wire.progress import between, seconds_range
from secateur_wire.shown_commands import shell
from secateur_wire.sizes import size as size

_NONE = "–"


def count(value: float | None) -> str:
    """Format a large number: 134,515,008 as 134.5 M."""
    if value is None:
        return _NONE
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.1f} {letter}"
    return f"{value:,.0f}"


def number(value: float | None, digits: int = 3) -> str:
    """Format a figure with a number of significant digits."""
    if value is None:
        return _NONE
    if isinstance(value, int) or not math.isfinite(value):
        return f"{value:,}"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def percent(value: float | None, digits: int = 0) -> str:
    """Format a share: 0.5 as 50 %."""
    return _NONE if value is None else f"{value * 100:.{digits}f} %"


def duration(seconds: float | None) -> str:
    """Format a duration: 2 h 05 min, 3 min 20 s, 1.2 s."""
    if seconds is None:
        return _NONE
    if seconds < 10:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    if rounded < 48 * 3600:
        return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"
    return f"{rounded // 86400} d {rounded % 86400 // 3600} h"


def moment(value: datetime | None) -> str:
    """Format a UTC time to the minute."""
    return _NONE if value is None else f"{value:%Y-%m-%d %H:%M}"


def clock(value: datetime) -> str:
    """Format a UTC time of day to the second."""
    return f"{value:%H:%M:%S}"


def since(value: datetime | None, now: datetime) -> str:
    """Format the time since a moment, roughly."""
    if value is None:
        return _NONE
    seconds = (now - value).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= max(5, length):
            return f"{seconds // length:.0f} {unit} ago"
    return "just now"


def as_json(value: Any) -> str:
    """Format a value as indented JSON, for people to read."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


FILTERS: dict[str, Callable[..., Any]] = {
    "size": size,
    "count": count,
    "number": number,
    "percent": percent,
    "duration": duration,
    "between": lambda limits: between(*limits),
    "seconds_range": seconds_range,
    "moment": moment,
    "clock": clock,
    "since": since,
    "as_json": as_json,
    "shell": shell,
}
