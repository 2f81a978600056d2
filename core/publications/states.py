"""The states of a publication."""

from typing import Final, Literal, get_args

PublicationStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATUSES: Final[tuple[PublicationStatus, ...]] = get_args(PublicationStatus)

OPEN: Final[tuple[PublicationStatus, ...]] = ("queued", "running")
"""Not over: its credentials are kept, and the artifact it publishes is not removed."""
