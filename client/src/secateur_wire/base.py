"""Base of all answers, and kinds of fields they have.

Clients that are older or newer than the server read an answer. Fields that a client does not know are kept, so a newer
server loses nothing on the way; fields that came later have defaults, so an older server is understood. The server
itself gives every field, which is what its OpenAPI document says.
"""

from typing import Annotated, ClassVar, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, JsonValue, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Item = TypeVar("Item")

JsonObject = Annotated[dict[str, JsonValue], WithJsonSchema({"type": "object", "additionalProperties": True})]
"""A JSON object whose fields belong to somebody else."""


class WireModel(BaseModel):
    """Base of all answers of the server."""

    model_config = ConfigDict(extra="allow", frozen=True, json_schema_serialization_defaults_required=True)

    not_promised: ClassVar[frozenset[str]] = frozenset()
    """Fields that the OpenAPI document does not promise, and shows with their defaults."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema of an answer as this server gives it: all fields, and none besides.

        A class that forbids unknown fields is a request, whose schema is left as it is.
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


class OneOf:
    """Annotation of a text that is one of a Literal's today; that of a newer server may be another."""

    def __init__(self, known: object) -> None:
        self._known = list(get_args(known))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        text = handler(schema)
        text.update({"const": self._known[0]} if len(self._known) == 1 else {"enum": self._known})
        return text


class Page(WireModel, Generic[Item]):
    """One page of a list. `next_after` is the `after` of the next page, null on the last."""

    data: list[Item]
    has_more: bool
    next_after: Annotated[str | int | None, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]})] = None
