"""Base class of all answers, and their common kinds of fields.

A client may be older or newer than the server. Fields that a client does not know are kept, so no field of a newer
server is lost. Newer fields have defaults, so answers of an older server are valid. The server itself sends every
field, as its OpenAPI document says.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Generic, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    JsonValue,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Item = TypeVar("Item")

JsonObject = Annotated[dict[str, JsonValue], WithJsonSchema({"type": "object", "additionalProperties": True})]
"""A JSON object with arbitrary fields."""


class WireModel(BaseModel):
    """Base class of all answers of the server."""

    model_config = ConfigDict(extra="allow", frozen=True, json_schema_serialization_defaults_required=True)

    not_promised: ClassVar[frozenset[str]] = frozenset()
    """Fields that the OpenAPI document does not require, and shows with their defaults."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema of an answer as this server sends it: all fields, and no others.

        A class that forbids unknown fields is a request; its schema is not changed.
        """
        reference = handler(schema)
        if cls.model_config.get("extra") != "allow":
            return reference
        answer = handler.resolve_ref_schema(reference)
        answer.pop("additionalProperties", None)
        for name, field in answer.get("properties", {}).items():
            if name not in cls.not_promised:
                field.pop("default", None)
        promised = [name for name in answer.pop("required", []) if name not in cls.not_promised]
        if promised:
            answer["required"] = promised
        return reference


class Record(WireModel):
    """Base class of figures and facts that the server fills in during a job, and stores as JSON.

    They keep the order in which their fields were set, including unknown ones. `document` leaves out fields that were
    never set, so a stored document is written back unchanged.
    """

    model_config = ConfigDict(frozen=False)

    _given: dict[str, None] = PrivateAttr(default_factory=dict)
    """Names in the order in which they were set."""

    def document(self) -> dict[str, JsonValue]:
        """Return the record as JSON, without fields that were never set."""
        return self.model_dump(mode="json", exclude_unset=True)

    @model_validator(mode="wrap")
    @classmethod
    def _note_order(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        record = handler(data)
        if isinstance(data, Mapping):
            record._given.update(dict.fromkeys(data))
        return record

    @model_serializer(mode="wrap")
    def _write_in_order(self, handler: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        written: dict[str, JsonValue] = handler(self)
        return {name: written[name] for name in self._given if name in written} | written

    if not TYPE_CHECKING:  # Hidden from mypy: with this method it would allow any attribute.

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if not name.startswith("_"):
                self._given.setdefault(name)


Number = int | float
"""A number that keeps its type, integer or float."""


class OneOf:
    """Annotation of a text that is one of a Literal's values; a newer server may send others."""

    def __init__(self, known: object) -> None:
        self._known = list(get_args(known))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        text = handler(schema)
        text.update({"const": self._known[0]} if len(self._known) == 1 else {"enum": self._known})
        return text


class Page(WireModel, Generic[Item]):
    """One page of a list. `next_after` is the `after` of the next page, null on the last page."""

    data: list[Item]
    has_more: bool
    next_after: Annotated[str | int | None, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]})] = None
