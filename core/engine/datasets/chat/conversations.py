"""Conversations of a JSONL or Parquet file: rows with `messages`, or with `prompt` and `completion`.

A row that is not a conversation at all is an error that names its line. A conversation that could not teach or measure
anything (without a user turn, or with an empty one) is left out and counted.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from core.engine.datasets.checks import find_check
from core.engine.datasets.formats import CHAT_JSONL, CHAT_PARQUET, is_text, read_json_lines
from core.untrusted_json import parse_json
from secateur_wire.base import JsonObject
from secateur_wire.datasets import LeftOut
from secateur_wire.errors import UnusableDataset

MESSAGES: Final = "messages"
PROMPT: Final = "prompt"
COMPLETION: Final = "completion"
TOOLS: Final = "tools"
CHECK: Final = "check"
REFERENCE: Final = "reference"
CHAT_FIELDS: Final = (MESSAGES, PROMPT, COMPLETION, TOOLS, CHECK, REFERENCE)
"""Fields that are read of a row; all others are ignored."""
_MOST_ROLE: Final = 64
_NO_USER_TURN: Final = "no user turn"
_EMPTY_USER_TURN: Final = "an empty user turn"
_EMPTY_ANSWER: Final = "an empty answer"


@dataclass(frozen=True)
class Conversation:
    """Conversation on a line of its file: its turns in order, and the tools that the assistant may call.

    `check` is the id of the check by which an answer to its question passes, and `reference` what that check compares
    with; both are None where the row has no check.
    """

    line: int
    messages: list[JsonObject]
    tools: list[Any] | None = None
    check: str | None = None
    reference: Any = None

    @property
    def characters(self) -> int:
        """Return the number of characters of all turns."""
        return sum(len(text_of(message)) for message in self.messages)

    @property
    def question(self) -> list[JsonObject]:
        """Return the turns up to and with the last one of the user: what the assistant is to answer."""
        return self.messages[: self._last_question + 1]

    @property
    def answer(self) -> str | None:
        """Return the assistant's answer to the last question of the user; None where the set has none."""
        later = self.messages[self._last_question + 1 :]
        return next((text_of(each) for each in later if each["role"] == "assistant" and text_of(each).strip()), None)

    @property
    def _last_question(self) -> int:
        return max(place for place, message in enumerate(self.messages) if message["role"] == "user")


@dataclass
class LeftOutRows:
    """Counter of the rows that were left out, by reason."""

    _rows: dict[str, LeftOut] = field(default_factory=dict)

    def add(self, reason: str, line: int) -> None:
        """Count the row of a line."""
        known = self._rows.get(reason) or LeftOut(reason=reason, rows=0, first_line=line)
        self._rows[reason] = known.model_copy(update={"rows": known.rows + 1})

    @property
    def rows(self) -> list[LeftOut]:
        """Return the counts, the most frequent reason first."""
        return sorted(self._rows.values(), key=lambda each: (-each.rows, each.first_line))

    @property
    def total(self) -> int:
        """Return the number of all rows that were left out."""
        return sum(each.rows for each in self._rows.values())


def described_rows(left_out: list[LeftOut]) -> str:
    """Return the reasons in words: "3 rows with no user turn (line 7 first)"."""
    return ", ".join(
        f"{each.rows} row{'' if each.rows == 1 else 's'} with {each.reason} (first: line {each.first_line})"
        for each in left_out
    )


def read_conversations(stream: BinaryIO, name: str, format: str, left_out: LeftOutRows) -> Iterator[Conversation]:
    """Yield the conversations of an open, seekable file in order, and count the others.

    Raises UnusableDataset naming the line of a row that is no conversation, of another kind than the first row, or with
    a check or a reference that cannot be used.
    """
    rows = {CHAT_JSONL: read_json_lines, CHAT_PARQUET: _read_parquet}[format](stream, name)
    first: tuple[int, str] | None = None
    for line, row in rows:
        where = f"{name} line {line}"
        kind = _kind(row, where)
        first = first or (line, kind)
        if kind != first[1]:
            raise UnusableDataset(
                f"{where} has {kind!r}, but line {first[0]} has {first[1]!r}: all rows must be of one kind",
                param="path",
            )
        conversation = Conversation(line, _messages(row, kind, where), _tools(row, where), *_checked_by(row, where))
        if (reason := _reason_to_leave_out(conversation)) is not None:
            left_out.add(reason, line)
        else:
            yield conversation


def measure_conversations(stream: BinaryIO, name: str, format: str) -> dict[str, Any]:
    """Return the number of conversations and of their characters, and the rows left out; raises UnusableDataset."""
    count = characters = 0
    left_out = LeftOutRows()
    for conversation in read_conversations(stream, name, format, left_out):
        count += 1
        characters += conversation.characters
    if not count:
        why = described_rows(left_out.rows)
        raise UnusableDataset(f"{name} holds no conversation{f': {why}' if why else ''}", param="path")
    return {
        "documents": count,
        "characters": characters,
        "left_out": [each.model_dump(mode="json") for each in left_out.rows],
    }


def is_conversation(row: object) -> bool:
    """Return True for a row that looks like a conversation: a list of messages, or a prompt with its completion."""
    if not isinstance(row, Mapping):
        return False
    messages = row.get(MESSAGES)
    is_list = isinstance(messages, list) and bool(messages) and all(_has_role(each) for each in messages)
    return is_list or bool(row.get(PROMPT) and row.get(COMPLETION))


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a checked message: its content, or the text of its parts, joined."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content or ""


def _has_role(message: object) -> bool:
    return isinstance(message, Mapping) and isinstance(message.get("role"), str)


def _kind(row: object, where: str) -> str:
    if not isinstance(row, dict):
        raise UnusableDataset(
            f"{where} is no JSON object: a row has {MESSAGES!r}, or {PROMPT!r} and {COMPLETION!r}", param="path"
        )
    for kind in (MESSAGES, PROMPT):
        if row.get(kind) is not None:
            return kind
    listed = ", ".join(repr(str(name)[:50]) for name in list(row)[:10]) or "nothing"
    raise UnusableDataset(
        f"{where} has neither {MESSAGES!r} nor {PROMPT!r}, but {listed}: a conversation is a list of "
        "{\"role\": …, \"content\": …} in 'messages', or a 'prompt' with its 'completion'",
        param="path",
    )


def _messages(row: Mapping[str, Any], kind: str, where: str) -> list[JsonObject]:
    if kind == MESSAGES:
        return _checked(row[MESSAGES], f"{where}: {MESSAGES}")
    prompt, completion = row[PROMPT], row.get(COMPLETION)
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    turns = _checked(turns, f"{where}: {PROMPT}")
    return turns if completion is None else [*turns, *_checked(completion, f"{where}: {COMPLETION}")]


def _checked(messages: object, where: str) -> list[JsonObject]:
    if not isinstance(messages, list) or not messages:
        raise UnusableDataset(f"{where} is not a list of messages", param="path")
    for number, message in enumerate(messages, 1):
        _check_message(message, f"{where}, turn {number}")
    return messages


def _check_message(message: object, where: str) -> None:
    if not isinstance(message, dict):
        raise UnusableDataset(f"{where} is no object with a role and a content", param="path")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role or len(role) > _MOST_ROLE:
        raise UnusableDataset(
            f"{where} has no role: a role is a text such as system, user, assistant or tool", param="path"
        )
    parts = content if isinstance(content, list) else []
    if content is not None and not isinstance(content, str | list):
        raise UnusableDataset(f"{where} has a content that is {type(content).__name__}, not text", param="path")
    for part in parts:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise UnusableDataset(
                f'{where} has a part of its content that is not {{"type": "text", "text": …}}: only text is read',
                param="path",
            )
    if content is None and not (role == "assistant" and message.get("tool_calls")):
        raise UnusableDataset(f"{where} ({role[:20]}) has no content", param="path")
    if not is_text(json.dumps(message, ensure_ascii=False)):
        raise UnusableDataset(f"{where} holds half of a surrogate pair", param="path")


def _tools(row: Mapping[str, Any], where: str) -> list[Any] | None:
    tools = row.get(TOOLS)
    if isinstance(tools, str):  # a column of Parquet cannot hold schemas of different shapes
        try:
            tools = parse_json(tools.encode()) if tools.strip() else None
        except ValueError as error:
            raise UnusableDataset(f"{where}: {TOOLS} is not valid JSON: {str(error)[:200]}", param="path") from error
    if tools is not None and not (isinstance(tools, list) and all(isinstance(each, dict) for each in tools)):
        raise UnusableDataset(f"{where}: {TOOLS} is not a list of JSON schemas", param="path")
    return tools or None


def _checked_by(row: Mapping[str, Any], where: str) -> tuple[str | None, Any]:
    if row.get(CHECK) is None:
        return None, None
    reference = row.get(REFERENCE)
    return find_check(row[CHECK], reference, where).id, reference


def _reason_to_leave_out(conversation: Conversation) -> str | None:
    turns = conversation.messages
    if not any(each["role"] == "user" for each in turns):
        return _NO_USER_TURN
    if any(each["role"] == "user" and not text_of(each).strip() for each in turns):
        return _EMPTY_USER_TURN
    if any(each["role"] == "assistant" and not (text_of(each).strip() or each.get("tool_calls")) for each in turns):
        return _EMPTY_ANSWER
    return None


def _read_parquet(stream: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet  # slow to load, and needed only here

    from core.engine.datasets.parquet import readable

    with readable(name), pyarrow.parquet.ParquetFile(stream) as file:
        columns = file.schema_arrow.names
        named = [column for column in columns if column in CHAT_FIELDS]
        if len(set(named)) != len(named) or not named:
            number = "several columns of one name" if named else "no column"
            listed = ", ".join(repr(column[:50]) for column in columns[:20])
            raise UnusableDataset(f"{name} has {number} among {', '.join(CHAT_FIELDS)}; it has {listed}", param="path")
        line = 0
        for batch in file.iter_batches(batch_size=64, columns=named):
            for row in batch.to_pylist():
                line += 1
                yield line, without_nulls(row)


def without_nulls(value: Any) -> Any:
    """Return a row of a columnar file without the nulls that stand for members its rows lack."""
    if isinstance(value, dict):
        return {str(name): without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value if inner is not None]
    return value


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
