"""The states of a publication."""

from typing import Final, get_args

from secateur_wire.states import PublicationStatus

STATUSES: Final[tuple[PublicationStatus, ...]] = get_args(PublicationStatus)

OPEN: Final[tuple[PublicationStatus, ...]] = ("queued", "running")
"""States of unfinished publications: credentials are stored, and the artifact is not removed."""
