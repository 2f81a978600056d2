"""Checks of an answer against its reference, without a judge: a reader of the reference, a rule, and a row of `CHECKS`.

A row of a set names its check and gives the reference: `{"prompt": "…", "check": "number", "reference": 12}`. Each
reader raises ValueError with the reason where a JSON value is no such reference.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Final, Generic, Literal, TypeVar

import jsonschema_rs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.untrusted_json import JsonLimits, parse_json
from secateur_wire.errors import UnusableDataset

_FENCED: Final = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_LIMITS: Final = JsonLimits(values=100_000, levels=64)
_NUMBER: Final = re.compile(r"(?<![\w.])[-\N{MINUS SIGN}]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+")
_GSM8K_MARK: Final = "####"
_LONGEST_REASON = 200
_MARKED: Final = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_LIST_MARK: Final = "[TOOL_CALLS]"
_WORD: Final = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE_END: Final = re.compile(r"[.!?…]+(?=\s|$)|[。！？]+")
_BULLET: Final = re.compile(r"^[ \t]*(?:[-*+•]|\d+[.)])[ \t]+\S", re.MULTILINE)
_BLANK_LINE: Final = re.compile(r"\n[ \t]*\n")

_Model = TypeVar("_Model", bound=BaseModel)
_Reference = TypeVar("_Reference")


@dataclass(frozen=True)
class Check(Generic[_Reference]):
    """Rule that says of an answer whether it passes: `verify`, by the reference that `read` makes of its JSON value."""

    id: str
    title: str
    read: Callable[[Any], _Reference]
    verify: Callable[[str, _Reference], bool]

    def passes(self, answer: str, reference: Any) -> bool:
        """Return True where the answer passes; `reference` is a JSON value; raises ValueError for a bad one."""
        return self.verify(answer, self.read(reference))


def find_check(name: object, reference: Any, where: str) -> Check[Any]:
    """Return the check of a name, once the reference was read by it.

    `where` says where both stand, such as the file and the line. Raises UnusableDataset naming that place where there
    is no such check, or where the reference is none of its.
    """
    check = CHECKS.get(name) if isinstance(name, str) else None
    if check is None:
        raise UnusableDataset(
            f"{where}: there is no check {str(name)[:50]!r}; the checks are {', '.join(CHECKS)}", param="path"
        )
    try:
        check.read(reference)
    except ValueError as error:
        raise UnusableDataset(f"{where}: bad reference for the check {check.id!r}: {error}", param="path") from error
    return check


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _read_texts(reference: Any) -> tuple[str, ...]:
    """Return the texts of a reference that is one text or a list of texts; none of them is blank."""
    texts = [reference] if isinstance(reference, str) else reference
    if not isinstance(texts, list) or not texts or not all(isinstance(each, str) and each.strip() for each in texts):
        shown = repr(reference)
        shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
        raise ValueError(f"a text or a list of texts, none of them empty, is needed, not {shown}")
    return tuple(texts)


def _read_model(model: type[_Model], reference: Any) -> _Model:
    """Return the reference as a pydantic model."""
    try:
        return model.model_validate(reference)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ValueError(f"{place + ': ' if place else ''}{first['msg']}") from error


def _parse_answer(answer: str) -> Any:
    """Return the JSON value of an answer; raises ValueError where it is none.

    The value is the content of the first block in ``` marks if there is one, and otherwise the whole answer: text
    around it is an error for a program that reads it.
    """
    fenced = _FENCED.search(answer)
    return parse_json((fenced[1] if fenced else answer).strip().encode(errors="replace"), _LIMITS, constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")


def _is_one_of(answer: str, texts: tuple[str, ...]) -> bool:
    return _joined(answer) in {_joined(text) for text in texts}


def _joined(text: str) -> str:
    """Return the text without white space at its ends, and with one space for each run of it."""
    return " ".join(text.split())


def _contains_all(answer: str, texts: tuple[str, ...]) -> bool:
    searched = answer.casefold()
    return all(text.casefold() in searched for text in texts)


def _last_number(text: str) -> Decimal | None:
    """Return the last number of a text, None without one, as GSM8K is scored (Cobbe 2021, arXiv:2110.14168).

    Commas between thousands are read over.
    """
    numbers: list[str] = _NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "").replace("\N{MINUS SIGN}", "-")) if numbers else None


def _read_number(reference: Any) -> Decimal:
    if isinstance(reference, int | float) and not isinstance(reference, bool):
        number = Decimal(str(reference))
        if number.is_finite():
            return number
    if isinstance(reference, str):
        text = reference.rpartition(_GSM8K_MARK)[2].strip()
        if _NUMBER.fullmatch(text) and (read := _last_number(text)) is not None:
            return read
    raise ValueError(
        f"a number, a text that is a number, or a worked answer that ends in '{_GSM8K_MARK} NUMBER' is needed, "
        f"not {str(reference)[:60]!r}"
    )


def _ends_in(answer: str, number: Decimal) -> bool:
    return _last_number(answer) == number


class _Choice(_Strict):
    """Choices, and the right one of them."""

    choices: list[str] = Field(min_length=2, max_length=100)
    answer: str

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> "_Choice":
        if any(not each.strip() for each in self.choices):
            raise ValueError("a choice is empty")
        if self.answer not in self.choices:
            raise ValueError(f"answer {self.answer[:50]!r} is none of the choices")
        return self


def _names_first(answer: str, reference: _Choice) -> bool:
    """Return True where the choice that the answer names first, as whole words, is the right one.

    Where several begin at the same place, the longest is the one named. A choice of one letter counts in its own case
    alone, so that the article in "a dog" is no choice A.
    """
    by_length = sorted(reference.choices, key=len, reverse=True)
    pattern = "|".join(f"({_words(choice)})" for choice in by_length)
    first = re.search(pattern, answer)
    return first is not None and by_length[(first.lastindex or 0) - 1] == reference.answer


def _words(choice: str) -> str:
    text = re.escape(choice)
    return rf"(?<!\w){text if len(choice) == 1 else f'(?i:{text})'}(?!\w)"


def _read_schema(reference: Any) -> "jsonschema_rs.Validator":
    """Return the validator of a JSON schema.

    Its patterns are run by an engine of linear time, so that none can run for ever; look-around and back-references,
    which it does not have, are refused. References to other documents are refused, never fetched.
    """
    if not isinstance(reference, dict):
        raise ValueError("a JSON schema, which is an object, is needed")
    try:
        return jsonschema_rs.validator_for(
            reference, pattern_options=jsonschema_rs.RegexOptions(), retriever=_refuse_to_fetch
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ValueError(f"it is no JSON schema that can be used here: {reason}") from error


def _refuse_to_fetch(uri: str) -> Any:
    raise ValueError(f"{uri[:100]} is another document, and those are not fetched")


def _is_valid(answer: str, validator: "jsonschema_rs.Validator") -> bool:
    try:
        value = _parse_answer(answer)
    except ValueError:
        return False
    return bool(validator.is_valid(value))


class _Call(_Strict):
    """Call that is expected; without `arguments` the name alone is compared."""

    name: str = Field(min_length=1)
    arguments: dict[str, Any] | None = None


def _read_calls(reference: Any) -> list[_Call]:
    calls = reference if isinstance(reference, list) else [reference]
    if not calls:
        raise ValueError("a call, or a list of calls, is needed")
    return [_read_model(_Call, each) for each in calls]


def _calls_them(answer: str, expected: list[_Call]) -> bool:
    """Return True where the answer makes the expected calls, in their order, and no others."""
    calls = _calls(answer)
    return len(calls) == len(expected) and all(
        name == one.name and (one.arguments is None or _same(arguments, one.arguments))
        for (name, arguments), one in zip(calls, expected, strict=True)
    )


def _calls(answer: str) -> list[tuple[str, dict[str, Any]]]:
    """Return name and arguments of each call of an answer; none where a part of it is no call.

    Chat models write `{"name": …, "arguments": {…}}` alone, in a list, fenced or between `<tool_call>` marks.
    """
    texts = _MARKED.findall(answer) or [answer.strip().removeprefix(_LIST_MARK)]
    calls: list[tuple[str, dict[str, Any]]] = []
    try:
        for text in texts:
            value = _parse_answer(text)
            calls += [_call(each) for each in (value if isinstance(value, list) else [value])]
    except ValueError:
        return []
    return calls


def _call(value: Any) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a call; raises ValueError where the value is none.

    The arguments are also known as `parameters`; arguments that are a text are JSON in it; a call may stand in a member
    `function`.
    """
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("a call names its function")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _parse_answer(arguments)
    if not isinstance(arguments, dict):
        raise ValueError("arguments are an object")
    return value["name"], arguments


def _same(first: Any, second: Any) -> bool:
    """Return True for the same JSON values; unlike Python's ==, true is not 1."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


class _Count(_Strict):
    """Bounds of a count, both included."""

    at_least: int | None = Field(None, ge=0)
    at_most: int | None = Field(None, ge=0)
    exactly: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _says_something(self) -> "_Count":
        if not self.model_fields_set:
            raise ValueError("at_least, at_most or exactly is needed")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("at_least is more than at_most")
        return self

    def holds(self, count: int) -> bool:
        """Return True where the count is within the bounds."""
        return (
            (self.at_least is None or count >= self.at_least)
            and (self.at_most is None or count <= self.at_most)
            and (self.exactly is None or count == self.exactly)
        )


class _Instructions(_Strict):
    """Instructions; the answer has to follow each of them. IFEval has such (Zhou 2023, arXiv:2311.07911).

    Words are runs of letters and digits; in scripts without spaces `characters` says more than `words`.

    `keywords` and `forbidden` are whole words or phrases, upper and lower case alike. `starts_with` and `ends_with` are
    exact, white space at the answer's ends aside. `commas` set to false forbids them.
    """

    words: _Count | None = None
    characters: _Count | None = None
    sentences: _Count | None = None
    paragraphs: _Count | None = None
    lines: _Count | None = None
    bullets: _Count | None = None
    keywords: list[str] = []
    forbidden: list[str] = []
    case: Literal["lower", "upper"] | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    commas: Literal[False] | None = None
    json_only: Literal[True] | None = Field(None, alias="json")

    @model_validator(mode="after")
    def _says_something(self) -> "_Instructions":
        if not self.model_fields_set:
            raise ValueError("there is no instruction")
        if any(not each.strip() for each in (*self.keywords, *self.forbidden)):
            raise ValueError("a keyword is empty")
        return self


def _follows(answer: str, instructions: _Instructions) -> bool:
    answer = answer.strip()
    return bool(answer) and all(each(answer, instructions) for each in (_has_length, _has_words, _has_form))


def _has_length(answer: str, instructions: _Instructions) -> bool:
    counts = (
        (instructions.words, len(_WORD.findall(answer))),
        (instructions.characters, len(answer)),
        (instructions.sentences, _sentences(answer)),
        (instructions.paragraphs, len(_BLANK_LINE.split(answer))),
        (instructions.lines, sum(bool(line.strip()) for line in answer.splitlines())),
        (instructions.bullets, len(_BULLET.findall(answer))),
    )
    return all(bounds is None or bounds.holds(count) for bounds, count in counts)


def _sentences(answer: str) -> int:
    """Return the number of sentences; what follows the last full stop is one as well."""
    return sum(bool(_WORD.search(part)) for part in _SENTENCE_END.split(answer))


def _has_words(answer: str, instructions: _Instructions) -> bool:
    return all(_names(answer, each) for each in instructions.keywords) and not any(
        _names(answer, each) for each in instructions.forbidden
    )


def _names(answer: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", answer, re.IGNORECASE) is not None


def _has_form(answer: str, instructions: _Instructions) -> bool:
    cased = {"lower": answer.lower(), "upper": answer.upper(), None: answer}
    return (
        answer == cased[instructions.case]
        and answer.startswith(instructions.starts_with or "")
        and answer.endswith(instructions.ends_with or "")
        and not (instructions.commas is False and re.search("[,，、،]", answer))
        and (instructions.json_only is None or _is_json(answer))
    )


def _is_json(answer: str) -> bool:
    try:
        _parse_answer(answer)
    except ValueError:
        return False
    return True


CHECKS: Final[dict[str, Check[Any]]] = {
    each.id: each
    for each in (
        Check("exact_match", "the reference, word for word; white space aside", _read_texts, _is_one_of),
        Check(
            "contains", "every text of the reference appears; upper and lower case alike", _read_texts, _contains_all
        ),
        Check("number", "the last number is the reference's", _read_number, _ends_in),
        Check(
            "choice",
            "the first of the choices that is named is the right one",
            partial(_read_model, _Choice),
            _names_first,
        ),
        Check("json_schema", "JSON that the schema calls valid", _read_schema, _is_valid),
        Check("function_call", "the expected calls, in order, in a form that programs read", _read_calls, _calls_them),
        Check(
            "instructions",
            "every instruction that a program can verify is followed",
            partial(_read_model, _Instructions),
            _follows,
        ),
    )
}
"""Checks by id, in the order of lists."""
