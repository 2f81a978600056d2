"""The states of a publication."""

from typing import Final, Literal, get_args

PublicationStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATUSES: Final[tuple[PublicationStatus, ...]] = get_args(PublicationStatus)

OPEN: Final[tuple[PublicationStatus, ...]] = ("queued", "running")
"""States of publications that are not over: credentials are kept, and the artifact is not removed."""
