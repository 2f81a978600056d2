"""Errors as JSON: problem documents (RFC 9457) for refused calls, and the errors stored with jobs."""

from typing import Annotated, TypedDict

from pydantic import GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from secateur_wire.base import WireModel

_TEXT = WithJsonSchema({"type": "string"})


class Problem(WireModel):
    """Error of a call.

    `code` is stable; `param` is the dotted name of the field, header or query parameter at fault.
    """

    type: Annotated[str | None, _TEXT] = None
    title: Annotated[str | None, _TEXT] = None
    status: Annotated[int | None, WithJsonSchema({"type": "integer"})] = None
    detail: str
    instance: Annotated[str | None, _TEXT] = None
    code: str
    param: str | None = None

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema of a problem, to which some errors add members of their own."""
        reference = super().__get_pydantic_json_schema__(schema, handler)
        handler.resolve_ref_schema(reference)["additionalProperties"] = True
        return reference


class StoredProblem(TypedDict):
    """Error as it is stored on a job and sent by the runner. `retryable`: another attempt could end differently."""

    code: str
    message: str
    param: str | None
    retryable: bool


def summary_of_problem(problem: StoredProblem) -> dict[str, str]:
    """Return the part of an error that may be shown to other users: without the parameter of somebody's request."""
    return {"code": problem["code"], "message": problem["message"]}
