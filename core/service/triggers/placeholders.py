"""Placeholders of a template: payload values, declared by name, type and pointer, checked and never evaluated."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import SchemaError

from core.service.triggers.json_pointer import MISSING, Pointer, look_up
from core.validation import shown
from secateur_wire.errors import InvalidRequest
from secateur_wire.requests import RequestObject, kind_of

PlaceholderType = Literal["string", "number", "integer", "boolean"]
Scalar = StrictBool | StrictInt | StrictFloat | StrictStr

_PYTHON: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
}


class Placeholder(RequestObject):
    """A value taken from the payload: its pointer, its type and its bounds.

    Without a `default` it is required, unless `required` is false; a missing value is then null.
    """

    path: Pointer = Field(description="JSON Pointer (RFC 6901) into the payload, such as /repo/headSha.")
    type: PlaceholderType = "string"
    required: bool | None = Field(
        None, description="Whether the payload must have a value. Unset: yes, if there is no default."
    )
    default: Scalar | None = Field(None, description="Value to use if the payload has nothing, or null, at the path.")
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = Field(
        None, description="For strings: a regular expression that the whole value must match (RE2 syntax, linear time)."
    )
    enum: Annotated[list[Scalar], Field(min_length=1, max_length=100)] | None = None
    min: StrictInt | StrictFloat | None = None
    max: StrictInt | StrictFloat | None = None

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if self.default is not None and self.required:
            raise ValueError("the payload must have the value, so a default is never used: drop one of the two")
        if self.pattern is not None:
            if self.type != "string":
                raise ValueError(f"pattern is for strings, not for type {self.type}")
            try:
                TypeAdapter(Annotated[str, StringConstraints(pattern=self.pattern)])
                _full_match(self.pattern)
            except SchemaError:
                raise ValueError(f"pattern {self.pattern!r} is not a regular expression (RE2 syntax)") from None
        if (self.min is not None or self.max is not None) and self.type not in ("number", "integer"):
            raise ValueError(f"min and max are for numbers, not for type {self.type}")
        for name, value in (("default", self.default), *(("enum", each) for each in self.enum or ())):
            if value is not None and (reason := self.rejection_of(value)) is not None:
                raise ValueError(f"{name} {reason}")
        return self

    @property
    def is_required(self) -> bool:
        return self.default is None if self.required is None else self.required

    def rejection_of(self, given: Any) -> str | None:
        """Return the reason why the value is not allowed, as the end of a sentence; None if it is allowed."""
        if not isinstance(given, _PYTHON[self.type]) or (isinstance(given, bool) and self.type != "boolean"):
            return f"is {kind_of(given)}, not of type {self.type}"
        value: Any = given
        if self.enum is not None and not any(_is_same(value, each) for each in self.enum):
            return f"is {shown(value)}, not one of {', '.join(shown(each) for each in self.enum[:20])}"
        if self.pattern is not None and not _matches(self.pattern, value):
            return f"is {shown(value)}, which does not match {self.pattern!r}"
        if self.min is not None and value < self.min:
            return f"is {shown(value)}, less than {self.min}"
        if self.max is not None and value > self.max:
            return f"is {shown(value)}, more than {self.max}"
        return None


def read_values(placeholders: Mapping[str, Placeholder], payload: Any) -> dict[str, Scalar | None]:
    """Return every placeholder's value in the payload; raises InvalidRequest that names the placeholder and the
    pointer.
    """
    values: dict[str, Scalar | None] = {}
    for name, placeholder in placeholders.items():
        value = look_up(payload, placeholder.path)
        if value is MISSING or value is None:
            if placeholder.is_required:
                actual = "nothing" if value is MISSING else "null"
                raise InvalidRequest(
                    f"placeholder {name}: the payload has {actual} at {placeholder.path or 'its root'!r}, and needs a "
                    f"value of type {placeholder.type} there",
                    param=name,
                )
            values[name] = placeholder.default
        elif (reason := placeholder.rejection_of(value)) is not None:
            raise InvalidRequest(
                f"placeholder {name}: the payload's {placeholder.path or 'root'!r} {reason}", param=name
            )
        else:
            values[name] = value
    return values


def _full_match(pattern: str) -> TypeAdapter[str]:
    """Return a validator for whole texts by pydantic's own engine, which takes linear time for any pattern."""
    return TypeAdapter(Annotated[str, StringConstraints(pattern=f"^(?:{pattern})$")])


def _matches(pattern: str, value: str) -> bool:
    try:
        _full_match(pattern).validate_python(value)
    except ValidationError:
        return False
    return True


def _is_same(one: Scalar, other: Scalar) -> bool:
    """Return whether two values are the same; True and 1 are different here, unlike in Python."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
