"""Retention policy of a team, in requests and answers."""

from typing import Annotated

from pydantic import Field

from secateur_wire import retention as wire
from secateur_wire.requests import RequestObject

_Label = Annotated[str, Field(min_length=1, max_length=300)]


class KeepTagged(RequestObject):
    """Rule that keeps the artifacts of jobs whose metadata has all of these values."""

    metadata: Annotated[dict[_Label, _Label], Field(min_length=1, max_length=20)]


class RetentionPolicy(RequestObject):
    """Policy that removes artifacts of jobs that ended more than `keep_days` ago.

    Artifacts stay if `keep_tagged` keeps them, or if they are in use. Jobs, reports, events, uploads, models
    and datasets always stay.
    """

    keep_days: Annotated[int, Field(ge=1, le=36500)]
    keep_tagged: KeepTagged | None = None


class Retention(wire.Retention[RetentionPolicy]):
    """A team's policy; null keeps everything.

    `suspended` is the reason why a stored policy removes nothing, such as a rule that has left; null where it is
    applied. An admin sets a new policy then.
    """


class RetentionPreview(wire.RetentionPreview[RetentionPolicy]):
    """Effect that a policy would have now.

    `artifacts` lists the artifacts to remove, then those that stay, each the oldest first, 1000 in total. `has_more`
    says that there are others. The counts are of all artifacts.
    """
