"""Licence and base model of a job's model, as its source states them; an artifact's card repeats them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FRONT_MATTER: Final = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
_LICENCE: Final = r"[A-Za-z0-9][A-Za-z0-9.+-]{0,79}"
_REPOSITORY: Final = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}"
_MOST_CHARACTERS: Final = 65_536

CARD: Final = "README.md"
"""File of a model folder with its card."""


@dataclass(frozen=True)
class SourceFacts:
    """Facts that a source states about a model: the licence's id, and the hub's name of the model it was made from."""

    licence: str | None = None
    base_model: str | None = None

    @property
    def lines(self) -> list[str]:
        """Return the lines of a card's front matter; facts that are not known have none."""
        facts = (("license", self.licence), ("base_model", self.base_model))
        return [f"{name}: {value}" for name, value in facts if value is not None]


NO_FACTS: Final = SourceFacts()


def licence_id(stated: object) -> str | None:
    """Return a licence's id as a source states it; None where that is no id. Anyone may write a source."""
    return stated.lower() if isinstance(stated, str) and re.fullmatch(_LICENCE, stated) else None


def facts_of_card(folder: Path) -> SourceFacts:
    """Return the facts in the front matter of a model folder's card; none where there is no card."""
    try:
        with (folder / CARD).open(encoding="utf-8", errors="replace") as file:
            matter = _FRONT_MATTER.match(file.read(_MOST_CHARACTERS))
    except OSError:
        return NO_FACTS
    text = "" if matter is None else matter[1]
    return SourceFacts(licence_id(_value("license", _LICENCE, text)), _value("base_model", _REPOSITORY, text))


def _value(name: str, form: str, text: str) -> str | None:
    match = re.search(rf"""^{name}:[ \t]*(["']?)({form})\1[ \t]*\r?$""", text, re.MULTILINE)
    return None if match is None else match[2]
