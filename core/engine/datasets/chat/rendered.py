"""Rendered conversations as JSON lines, and the facts about a rendering."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from core.engine.datasets.json_lines import is_text, read_json_lines
from secateur_wire.datasets import LeftOut


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RenderedRow(_Facts):
    """Rendered conversation of a line of its file; `spans` are the places [start, end) of the assistant's own words.

    `spans` is None where they are not known. Of a question, `reference` is what its answer is compared with, by the
    check of this name.
    """

    line: int
    text: str
    spans: list[tuple[int, int]] | None = None
    reference: JsonValue = Field(None, exclude_if=lambda reference: reference is None)
    check: str | None = Field(None, exclude_if=lambda check: check is None)

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        reached = 0
        for start, end in self.spans or ():
            if not reached <= start < end <= len(self.text):
                raise ValueError(f"the place [{start}, {end}) is not one of the text's {len(self.text)} characters")
            reached = end
        if not is_text(self.text):
            raise ValueError("the text holds half of a surrogate pair")
        return self


class Rendering(_Facts):
    """Facts about the rendering of a set of conversations.

    `template` is the hash of the template with its special tokens. `unread_from` is the line from which the set was not
    read, because what was rendered before is as much as is kept. `unmarked` is the reason why the assistant's words are
    not known in some conversations, with the first one's line.
    """

    template: str
    conversations: int
    characters: int
    left_out: list[LeftOut] = Field(default_factory=list)
    unread_from: int | None = None
    unmarked: str | None = None


class Frame(_Facts):
    """Words of a template around a question and its answer: before the question, between the two, and after them."""

    opening: str
    between: str
    closing: str


def read_rendered(path: Path) -> Iterator[RenderedRow]:
    """Yield the rows of a file of rendered conversations."""
    with path.open("rb") as stream:
        for _, row in read_json_lines(stream, path.name):
            yield RenderedRow.model_validate(row)


def to_line(line: int, text: str, spans: Any, reference: JsonValue = None, check: str | None = None) -> str:
    """Return a row as a line of its file."""
    return RenderedRow(line=line, text=text, spans=spans, reference=reference, check=check).model_dump_json() + "\n"
