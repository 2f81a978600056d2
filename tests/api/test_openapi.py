"""The OpenAPI document says everything, and what it shows is true."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from api.app import create_app
from api.http.problem_documents import PROBLEM_JSON
from api.openapi.document import operations
from core.settings import Settings
from secateur import errors as client_errors
from secateur.transport.problems import BY_CODE, BY_STATUS
from secateur_wire.errors import ApiError

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    """No database is needed to describe the service."""
    return create_app(Settings(database_url="postgresql+psycopg://nobody@127.0.0.1:1/nothing")).openapi()


def _kinds(kind: type[ApiError] = ApiError) -> Iterator[type[ApiError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _kinds(inner)


def _contents(document: Document) -> Iterator[tuple[str, Document]]:
    """(where, media type object) of every body asked for and answered with."""
    for method, path, operation in operations(document):
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{method} {path} takes {media}", content
        for status, response in operation["responses"].items():
            for media, content in response.get("content", {}).items():
                yield f"{method} {path} answers {status} {media}", content


def _examples(document: Document, content: Document) -> list[Any]:
    if "example" in content:
        return [content["example"]]
    named = document["components"]["examples"]
    return [named[each["$ref"].rpartition("/")[2]]["value"] for each in content.get("examples", {}).values()]


def _strict(schema: Any) -> Any:
    """The schema, refusing fields it does not name: an example may not show what is not there."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _strict(value) for name, value in schema.items()}
    if "properties" in closed and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed


def _compiling(components: Any) -> Callable[[Any], Draft202012Validator]:
    """Return what compiles schemas, each together with the components and once: most calls share theirs."""

    @cache
    def compiled(schema: str) -> Draft202012Validator:
        return Draft202012Validator(json.loads(schema) | {"components": components})

    return lambda schema: compiled(json.dumps(schema))


def test_every_body_and_answer_has_an_example_that_fits_its_schema(document: Document) -> None:
    validator = _compiling(_strict(document["components"]))
    found = 0
    for where, content in _contents(document):
        examples = _examples(document, content)
        assert examples, f"{where} has no example: add one to api/examples"
        schema = validator(_strict(content["schema"]))
        for example in examples:
            found += 1
            faults = [f"{fault.instance_path}: {fault.message}" for fault in schema.iter_errors(example)]
            assert not faults, (where, faults)
    assert found > 100


def test_every_error_has_an_example_of_its_own_code_and_status(document: Document) -> None:
    examples = document["components"]["examples"]
    for kind in _kinds():
        value = examples[kind.code]["value"]
        assert value["detail"], f"{kind.code} has no example: add one to api/openapi/problem_examples.py"
        assert (value["code"], value["type"]) == (kind.code, f"urn:secateur:problem:{kind.code}")
        assert value["status"] == kind.status or kind.__subclasses__(), kind
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == [PROBLEM_JSON], (method, path, status)
                for example in _examples(document, response["content"][PROBLEM_JSON]):
                    assert example["status"] == int(status), (method, path, status)


def test_the_client_has_a_class_for_every_error_a_call_can_meet(document: Document) -> None:
    for code, example in document["components"]["examples"].items():
        status = example["value"]["status"]
        kind = BY_CODE.get(code, BY_STATUS.get(status, client_errors.ServerError))
        assert status == 416 or issubclass(kind, BY_STATUS.get(status, client_errors.ServerError)), code
    for code in BY_CODE:
        assert code in document["components"]["examples"], f"the client knows {code}, which no error has"
