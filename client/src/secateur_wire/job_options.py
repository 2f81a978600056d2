"""Options of `secateur submit`, and the job body that they make."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from pydantic import JsonValue

from secateur_wire.body_fields import YES_OR_NO, Field, body_fields
from secateur_wire.job_body import JobBody
from secateur_wire.job_fields import ENTRIES, GROUPS, Entry

_ALL: Final = "all"
_MOST_NAMED: Final = 3
"""Options for the members of an object, which are all named in an error about the object."""

_OPTIONS_OF_PLANS: Final[Mapping[str, str]] = {"goal": "--for", "dataset": "--calibration"}
"""Options of plans by their fields, where the names differ."""


@dataclass(frozen=True)
class Option:
    """Option of the command line, and the entries of the table that it sets, one or several with the same value.

    `field` is the field of the first entry, None for an object: the option then sets each of its members without an
    option of its own.
    """

    entries: tuple[Entry, ...]
    field: Field | None
    group: str

    @property
    def name(self) -> str:
        return self.entries[0].option

    @property
    def path(self) -> str:
        return self.entries[0].path

    @property
    def usage(self) -> str:
        """Return the option with its value: --calibration NAME."""
        return f"{self.name} {self.metavar}".rstrip()

    @property
    def metavar(self) -> str:
        """Return the placeholder of its value; "" where its type is sufficient."""
        match self.field:
            case _ if self.entries[0].metavar:
                return self.entries[0].metavar
            case None:
                return "NAME=VALUE"
            case Field(kind="pairs"):
                return "KEY=VALUE"
            case Field(kind="json", type="array"):
                return "FORM:TYPES"
            case Field(takes_all=True):
                return "N|all"
            case Field(options=options):
                return "|".join(options)

    @property
    def help(self) -> str:
        """Return the help text of the option."""
        entry = self.entries[0]
        words = entry.help or (self.field and (self.field.hint or f"{self.field.label}.")) or ""
        return f"{'Gate. ' if self.group == 'gates' else ''}{words}{' Repeatable.' if self.is_list else ''}"

    @property
    def is_list(self) -> bool:
        """Return whether the option is repeated for several values."""
        return self.field.type in ("array", "object") if self.field else True

    @property
    def is_of_object(self) -> bool:
        """Return whether the option sets an object of the body, or a member of one."""
        return self.field is None or self.field.kind == "pairs" or "." in self.path

    def read(self, given: Any) -> JsonValue:
        """Return the value for the body. Raises ValueError for an invalid one."""
        match self.field:
            case None:
                texts = given if self.is_list else [given]
                return {name: _json_or_text(value) for name, value in pairs(texts, self.name, self.metavar).items()}
            case Field(kind="pairs"):
                return dict(pairs(given, self.name, self.metavar))
            case Field(kind="lines"):
                return list(given)
            case Field(type="array"):
                return [self._read_export(each) for each in given]
            case Field(takes_all=True):
                return self._read_number_or_all(given)
            case Field(type="boolean"):
                if given not in YES_OR_NO:
                    raise ValueError(f"{self.name} {given!r}: give {' or '.join(YES_OR_NO)}")
                return bool(json.loads(given))
            case Field(kind="number") if isinstance(given, str):
                return _json_or_text(given)
            case _:
                value: JsonValue = given
                return value

    def _read_export(self, text: str) -> JsonValue:
        form, _, types = text.partition(":")
        if not form or not all(named := types.split(",")):
            raise ValueError(f"{self.name} {text!r}: write FORM:TYPE, or FORM:TYPE,TYPE, such as gguf:F16,Q8_0")
        return {"format": form, "types": [*named]}

    def _read_number_or_all(self, text: str) -> JsonValue:
        if text != _ALL and (not text.isdecimal() or int(text) < 1):
            raise ValueError(f"{self.name} {text!r}: give a number of at least 1, or `{_ALL}`")
        return None if text == _ALL else int(text)


@cache
def job_options() -> Mapping[str, Option]:
    """Return every option of a job by its name, in the order of the table."""
    fields = body_fields(JobBody)
    options: dict[str, Option] = {}
    for group, entries in GROUPS.items():
        for entry in (each for each in entries if each.option):
            of_one = (*(options[entry.option].entries if entry.option in options else ()), entry)
            options[entry.option] = Option(of_one, fields.get(of_one[0].path), group)
    return options


def body_of(given: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return the part of a job body for these options: `given` has the value of each by its name.

    A value is a number or a text, or a list of texts for a repeatable option. Raises ValueError that names the
    correction.
    """
    body: dict[str, Any] = {}
    for option in (each for each in job_options().values() if each.name in given):
        value = option.read(given[option.name])
        entries = [each for each in option.entries if not each.needed or ENTRIES[each.needed].option in given]
        paths = [*(each.path for each in entries), *(each.also for each in option.entries if each.also)]
        if not paths:
            needed = [job_options()[ENTRIES[each.needed].option].usage for each in option.entries]
            raise ValueError(f"{option.name} needs {' or '.join(needed)}")
        for path in paths:
            _put(body, path, value, option)
    return body


def _put(body: dict[str, Any], path: str, value: Any, option: Option) -> None:
    if option.field is not None:
        holder, name = _holder(body, path)
        holder.setdefault(name, value)
        return
    members = body.setdefault(path, {})
    if repeated := members.keys() & value.keys():
        raise ValueError(f"{option.name} {min(repeated)} has an option of its own, which is given too")
    members.update(value)


def _holder(body: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Return the object that contains a field, created if it is missing, and the field's name in it."""
    *parts, name = path.split(".")
    holder = body
    for part in parts:
        holder = holder.setdefault(part, {})
    return holder, name


def option_for(param: str | None) -> str | None:
    """Return the options that set an object of a job body, as text; None for any other field."""
    options = [each for each in job_options().values() if each.path.partition(".")[0] == param and each.is_of_object]
    if not options:
        return None
    needed = {entry.needed for option in options for entry in option.entries}
    named = [each for each in options if each.path in needed][:1] or options[:_MOST_NAMED]
    return ", ".join(each.usage for each in named) + (" and the like" if len(options) > len(named) > 1 else "")


def option_of(param: str) -> str:
    """Return the option that sets a field of a request, or else the field that holds it."""
    path = param
    while path:
        if path in ENTRIES and ENTRIES[path].option:
            return ENTRIES[path].option
        path = path.rpartition(".")[0]
    return _OPTIONS_OF_PLANS.get(param) or f"--{param.replace('_', '-')}"


def pairs(given: Iterable[str], option: str, metavar: str) -> dict[str, str]:
    """Parse NAME=VALUE, each name once. Raises ValueError for a malformed pair or a repeated name."""
    by_name: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise ValueError(f"{option} {text!r}: write {metavar}")
        if name in by_name:
            raise ValueError(f"{option} {name} is given twice")
        by_name[name] = value
    return by_name


def _json_or_text(text: str) -> JsonValue:
    """Parse JSON such as `0.5`, `true`, `[1, 2]` and `"0.5"`; other text, like `row`, stays text."""
    try:
        value: JsonValue = json.loads(text, parse_constant=lambda constant: constant)
    except (ValueError, RecursionError):
        return text
    return value
