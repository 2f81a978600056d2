"""Identifiers, and their shortened forms."""

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
"""Prefix before the underscore, by the kind of object."""

LENGTH: Final = 26
"""Characters after the underscore: digits and small letters; they sort by the time of creation."""

NEWEST: Final = "-"
"""Stands for the job that the caller's key submitted last."""


class Identifier(WireModel):
    """Identifier of an object, and the time of its creation."""

    id: str
    object: Literal["identifier"] = "identifier"
    kind: IdentifierKind
    created_at: datetime
