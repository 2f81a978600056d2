"""Templates of job bodies: JSON in which some values are placeholders. Filling one replaces only those.

A placeholder is either a whole value, `{"$payload": "name"}`, which keeps its type, or `${name}` within a string, for
strings only. `$${` in a string stands for `${`. Member names are never placeholders, inserted values are not searched
for placeholders, and nothing is evaluated: there are no expressions, attributes or conditions.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.service.triggers.placeholders import Placeholder, Scalar
from secateur_wire.errors import InvalidRequest

PAYLOAD_KEY: Final = "$payload"
NAME: Final = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
MOST_FILLED: Final = 2**20
"""Maximum number of characters that values insert into a template: the size limit of a body in bytes."""
_MARK = re.compile(r"\$\$\{|\$\{(?:(" + NAME + r")\})?")
_NAME = re.compile(NAME)

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Mention:
    """Placeholder in a template: its place, and whether it is the whole value."""

    name: str
    place: Place
    is_entire_value: bool


def mentions(template: Any, place: Place = ()) -> Iterator[Mention]:
    """Yield every placeholder in a template; raises InvalidRequest for a malformed one."""
    if isinstance(template, dict):
        if PAYLOAD_KEY in template:
            yield Mention(_placeholder_name(template, place), place, is_entire_value=True)
            return
        for name, value in template.items():
            if _MARK.search(name):
                raise _invalid((*place, name), "only values can be placeholders, not names of members")
            yield from mentions(value, (*place, name))
    elif isinstance(template, list):
        for index, value in enumerate(template):
            yield from mentions(value, (*place, index))
    elif isinstance(template, str):
        for mark in _MARK.finditer(template):
            if mark[0] == "${":
                raise _invalid(place, "${ begins a placeholder such as ${commit}; write $${ where it is meant as text")
            if mark[1]:
                yield Mention(mark[1], place, is_entire_value=False)


def check_mentions(template: Any, placeholders: Mapping[str, Placeholder]) -> list[Mention]:
    """Return the placeholders in a template; raises InvalidRequest for an undeclared or mistyped one."""
    mentioned = list(mentions(template))
    for mention in mentioned:
        declared = placeholders.get(mention.name)
        if declared is None:
            known = ", ".join(sorted(placeholders)) or "none"
            raise _invalid(mention.place, f"placeholder {mention.name!r} is not declared in placeholders ({known})")
        if mention.is_entire_value:
            continue
        if declared.type != "string":
            raise _invalid(
                mention.place,
                f"placeholder {mention.name!r} is of type {declared.type}, and only strings go into a string: "
                f'write {{"{PAYLOAD_KEY}": "{mention.name}"}} as the whole value',
            )
        if declared.default is None and not declared.is_required:
            raise _invalid(mention.place, f"placeholder {mention.name!r} may be absent: in a string it needs a default")
    return mentioned


def fill(template: Any, values: Mapping[str, Scalar | None]) -> Any:
    """Return the template with its placeholders replaced; `values` must have all of them.

    Raises InvalidRequest where the result would exceed `MOST_FILLED`: one value may occur in many places.
    """
    lengths = {name: len(str(value)) for name, value in values.items()}
    if sum(lengths[mention.name] for mention in mentions(template)) > MOST_FILLED:
        raise InvalidRequest(
            f"template: with the payload's values it would have more than {MOST_FILLED} characters", param="template"
        )
    return _filled(template, values)


def _filled(template: Any, values: Mapping[str, Scalar | None]) -> Any:
    if isinstance(template, dict):
        if PAYLOAD_KEY in template:
            return values[template[PAYLOAD_KEY]]
        return {name: _filled(value, values) for name, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, values) for value in template]
    if isinstance(template, str):
        return _MARK.sub(lambda mark: str(values[mark[1]]) if mark[1] else "${", template)
    return template


def dotted(place: Place) -> str:
    """Return a place in the form of `param`: `template.calibration.samples`."""
    return ".".join(["template", *map(str, place)])


def _placeholder_name(template: dict[str, Any], place: Place) -> str:
    name = template[PAYLOAD_KEY]
    if len(template) > 1:
        raise _invalid(place, f'{{"{PAYLOAD_KEY}": "name"}} must be the only member of its object')
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _invalid(place, f"{PAYLOAD_KEY} names a placeholder, such as commit; {str(name)[:80]!r} is no such name")
    return name


def _invalid(place: Place, message: str) -> InvalidRequest:
    return InvalidRequest(f"{dotted(place)}: {message}", param=dotted(place))
