"""Due times of schedules: cron expressions in a time zone, with daylight saving handled like cron on Debian.

A time that the clock skips in spring is due right after the gap; a time that comes twice in autumn is due once.
Schedules of every hour or finer follow real time.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

_FIELDS = 5
MOST_COUNTED = 1000
"""Maximum number of missed times that are counted."""


def check_cron(cron: str) -> str:
    """Return the expression; raises ValueError that names its fault."""
    if len(cron.split()) != _FIELDS:
        raise ValueError(f"a cron expression has {_FIELDS} fields (minute hour day month weekday), such as 0 3 * * MON")
    try:
        iterator = CronSim(cron, datetime.now(UTC))
        next(iterator)
    except CronSimError as error:
        raise ValueError(f"not a cron expression: {error}; write for example 0 3 * * MON for Mondays at 3") from None
    except StopIteration:
        raise ValueError("this cron expression matches no time") from None
    return cron


def check_timezone(name: str) -> str:
    """Return the name; raises ValueError for an unknown zone."""
    if name not in _timezones():
        raise ValueError(f"there is no time zone {name!r}: use an IANA name such as Europe/Berlin or UTC")
    return name


def next_due(cron: str, timezone: str, after: datetime) -> datetime:
    """Return the first due time after `after` (aware), in UTC."""
    return next(CronSim(cron, after.astimezone(ZoneInfo(timezone)))).astimezone(UTC)


def last_due(cron: str, timezone: str, after: datetime, until: datetime) -> datetime | None:
    """Return the last due time after one time and not after another, among the first MOST_COUNTED, in UTC."""
    moments = list(_due_moments(cron, timezone, after, until))
    return moments[-1].astimezone(UTC) if moments else None


def count_due(cron: str, timezone: str, after: datetime, until: datetime) -> int:
    """Return the number of due times after one time and not after another, at most MOST_COUNTED."""
    return sum(1 for _ in _due_moments(cron, timezone, after, until))


def _due_moments(cron: str, timezone: str, after: datetime, until: datetime) -> Iterator[datetime]:
    moments = CronSim(cron, after.astimezone(ZoneInfo(timezone)))
    return takewhile(lambda moment: moment <= until, islice(moments, MOST_COUNTED))


@lru_cache(1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())
