"""Reference pages: the command line from its own help, the API from its OpenAPI document, and who may call what."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import typer
from typer.core import TyperGroup

from api import authorization as calls_by_role
from api.app import create_app
from api.openapi.document import operations, required_role
from core.settings import Settings
from documentation.markdown import fields, kind, table
from secateur.cli import GROUPS
from secateur.cli import command_line as whole_command_line

_JSON: Final = "application/json"


def command_line() -> str:
    """Return a page of all commands with their arguments and options."""
    line = whole_command_line()
    assert isinstance(line, TyperGroup)
    parts = [
        "# Commands",
        "Every command of `secateur` with its options, as `--help` shows them. [The command line](../command-line.md) "
        "says how to work with it. Commands under *Server* come with the package `secateur-server`, all others with "
        "the client alone.",
    ]
    for group, names in GROUPS.items():
        parts.append(f"## {group}")
        parts += [text for name in names if name in line.commands for text in _commands(line.commands[name], name)]
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, name: str) -> Iterator[str]:
    yield f"### secateur {name} {{ #{name.replace(' ', '-')} }}\n\n{_plain(command.help or '')}"
    context = typer.Context(command, info_name=name)
    rows = [
        _option(each, context) for each in command.params if each.name != "help" and not getattr(each, "hidden", False)
    ]
    if rows:
        yield table(["argument or option", "what it does"], rows)
    if isinstance(command, TyperGroup):
        for inner, each in command.commands.items():
            yield from _commands(each, f"{name} {inner}")


def _option(parameter: Any, context: typer.Context) -> list[str]:
    record = parameter.get_help_record(context)
    if record is None:
        return [f"`{parameter.make_metavar(context)}`", _plain(getattr(parameter, "help", "") or "")]
    return [f"`{record[0]}`", _plain(record[1])]


def _plain(text: str) -> str:
    return text.replace("\b", "").replace("<", "&lt;").strip()


@cache
def _document() -> dict[str, Any]:
    return create_app(Settings(database_url="postgresql+psycopg://not@needed/here")).openapi()


def calls() -> str:
    """Return a page of all calls of the REST API with their parameters, bodies and answers."""
    document = _document()
    parts = [
        "# REST API",
        "Every call, from the OpenAPI document that a server has at `/openapi.json`; its page `/docs` lets you try "
        "them. Send the key as `Authorization: Bearer KEY`. Errors are problem documents (RFC 9457) with a stable "
        "`code`. A POST that creates something can be repeated safely with an `Idempotency-Key`.",
    ]
    by_tag: dict[str, list[str]] = {tag["name"]: [tag["description"]] for tag in document["tags"]}
    used: set[str] = set()
    for method, path, operation in operations(document):
        by_tag[operation["tags"][0]].append(_call(method, path, operation))
        used |= set(_body_names(operation))
    for tag, texts in by_tag.items():
        parts += [f"## {tag}", *texts]
    parts.append("## Bodies of requests")
    for name in sorted(used):
        schema = document["components"]["schemas"][name]
        rows = fields(schema)
        parts.append(f"### {name}\n\n{schema.get('description', '')}")
        parts += [table(["field", "values", "default", "meaning"], rows)] if rows else []
    return "\n\n".join(parts) + "\n"


def _call(method: str, path: str, operation: Mapping[str, Any]) -> str:
    needed = required_role(dict(operation))
    parts = [
        f"### `{method.upper()} {path}` {{ #{operation['operationId'].replace('_', '-')} }}",
        operation.get("description") or operation["summary"],
        f"Needs {'the role ' + needed if needed else 'no key'}."
        + "".join(f" Body: [`{name}`](#{name.lower()})." for name in _body_names(operation)),
    ]
    rows = [
        [f"`{each['name']}`", each["in"], kind(each.get("schema", {})), each.get("description", "")]
        for each in operation.get("parameters", [])
    ]
    if rows:
        parts.append(table(["parameter", "in", "values", "meaning"], rows))
    answers = [
        f"{status} ({_answer(answer)})" if _answer(answer) else status
        for status, answer in operation["responses"].items()
    ]
    parts.append(f"Answers: {', '.join(answers)}.")
    return "\n\n".join(parts)


def _answer(answer: Mapping[str, Any]) -> str:
    schema = answer.get("content", {}).get(_JSON, {}).get("schema", {})
    return kind(schema) if schema.get("$ref") else ""


def _body_names(operation: Mapping[str, Any]) -> Iterator[str]:
    schema = operation.get("requestBody", {}).get("content", {}).get(_JSON, {}).get("schema", {})
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2]


def authorization() -> str:
    """Return the table of the calls that each kind of caller may make."""
    return calls_by_role.page(_document())
