"""Due times of schedules: cron expressions in a time zone, daylight saving as cron on Debian treats it.

A time that the clock skips in spring is due right after the gap, one that comes twice in autumn is due once; schedules
of every hour or finer go by real time.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

_FIELDS = 5
MOST_COUNTED = 1000
"""Most missed times that are counted."""


def check_cron(cron: str) -> str:
    """Return the expression; raises ValueError saying what is wrong with it."""
    if len(cron.split()) != _FIELDS:
        raise ValueError(f"a cron expression has {_FIELDS} fields (minute hour day month weekday), such as 0 3 * * MON")
    try:
        iterator = CronSim(cron, datetime.now(UTC))
        next(iterator)
    except CronSimError as error:
        raise ValueError(f"not a cron expression: {error}; write for example 0 3 * * MON for Mondays at 3") from None
    except StopIteration:
        raise ValueError("this cron expression is never due") from None
    return cron


def check_timezone(name: str) -> str:
    """Return the name; raises ValueError where there is no such zone."""
    if name not in _timezones():
        raise ValueError(f"there is no time zone {name!r}: use an IANA name such as Europe/Berlin or UTC")
    return name


def next_due(cron: str, timezone: str, after: datetime) -> datetime:
    """Return the first moment after `after` (aware) that is due, in UTC."""
    return next(CronSim(cron, after.astimezone(ZoneInfo(timezone)))).astimezone(UTC)


def last_due(cron: str, timezone: str, after: datetime, until: datetime) -> datetime | None:
    """Return the last moment that is due after one and not after another, of the first MOST_COUNTED, in UTC."""
    moments = list(_due_moments(cron, timezone, after, until))
    return moments[-1].astimezone(UTC) if moments else None


def count_due(cron: str, timezone: str, after: datetime, until: datetime) -> int:
    """Return how many moments are due after one and not after another; counted up to MOST_COUNTED."""
    return sum(1 for _ in _due_moments(cron, timezone, after, until))


def _due_moments(cron: str, timezone: str, after: datetime, until: datetime) -> Iterator[datetime]:
    moments = CronSim(cron, after.astimezone(ZoneInfo(timezone)))
    return takewhile(lambda moment: moment <= until, islice(moments, MOST_COUNTED))


@lru_cache(1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())
