"""Identifiers, and the shortened ones that people type."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from secateur_wire.base import WireModel

IdentifierKind = Literal["job", "sweep", "publication", "trigger", "webhook", "delivery", "key"]

PREFIXES: Final[Mapping[IdentifierKind, str]] = {
    "job": "job",
    "sweep": "swp",
    "publication": "pub",
    "trigger": "trigger",
    "webhook": "webhook",
    "delivery": "delivery",
    "key": "key",
}
"""Word before the underscore of a kind's identifiers."""

LENGTH: Final = 26
"""Characters after the underscore: digits and small letters, which sort by the time they were made."""

NEWEST: Final = "-"
"""Stands for the job that the caller's key submitted last."""


class Identifier(WireModel):
    """Identifier of a thing, and when that was made."""

    id: str
    object: Literal["identifier"] = "identifier"
    kind: IdentifierKind
    created_at: datetime
