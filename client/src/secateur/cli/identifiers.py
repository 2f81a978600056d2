"""Shortened identifiers: what a command takes in place of a whole id, made whole before the command begins.

An id may be shortened to any beginning that is its alone, with or without the word before the underscore, and `-` is
the job that the caller's key submitted last.
"""

import re
from collections.abc import Callable
from typing import Annotated, Final

import typer

from secateur.cli.output import age, connect
from secateur.errors import NotFound
from secateur_wire.base import Page
from secateur_wire.identifiers import LENGTH, NEWEST, PREFIXES, Identifier, IdentifierKind

JOB_MODEL: Final = "job:"
"""Begins a model that is the artifact of a job."""


def whole(kind: IdentifierKind, *, is_name_too: bool = False) -> Callable[[str | None], str | None]:
    """Return a callback of an argument that is an id of this kind; `is_name_too` where names are taken as well."""

    def make_whole(given: str | None) -> str | None:
        is_name = is_name_too and given is not None and not given.startswith(f"{PREFIXES[kind]}_")
        return given if given is None or is_name else whole_identifier(kind, given)

    return make_whole


def whole_object(given: str | None) -> str | None:
    """Make an id of any kind whole whose word before the underscore says which."""
    for kind, word in PREFIXES.items():
        if given is not None and given.startswith(f"{word}_"):
            return whole_identifier(kind, given)
    return given


def whole_model(given: str | None) -> str | None:
    """Make the id whole in a model that is the artifact of a job."""
    if given is None or not given.startswith(JOB_MODEL):
        return given
    return JOB_MODEL + whole_identifier("job", given.removeprefix(JOB_MODEL))


def whole_identifier(kind: IdentifierKind, given: str) -> str:
    """Return the one id that begins as given; what is whole, or no beginning of any id, is left for the server to say.

    Raises typer.BadParameter where none begins so, or several do.
    """
    begun = given.lower().removeprefix(f"{PREFIXES[kind]}_")
    is_newest = kind == "job" and given == NEWEST
    if not is_newest and (not re.fullmatch("0[0-9a-z]*", begun) or len(begun) >= LENGTH):
        return given
    with connect() as client:
        try:
            found = client.identifiers(kind, NEWEST if is_newest else begun)
        except NotFound:
            if is_newest:
                raise
            return given  # a server of a release before this call
    return only_one(kind, given, found)


def only_one(kind: IdentifierKind, given: str, found: Page[Identifier]) -> str:
    """Return the one id that was found; raises typer.BadParameter where there is none, or more."""
    if len(found.data) == 1:
        return found.data[0].id
    if not found.data:
        raise typer.BadParameter(f"no {kind} has an id that begins with {given!r}")
    candidates = ", ".join(f"{each.id} ({age(each.created_at)})" for each in found.data)
    raise typer.BadParameter(
        f"several have an id that begins with {given!r}: {candidates}{' and more' if found.has_more else ''}; "
        "write more of it"
    )


JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        callback=whole("job"),
        help="The job, such as job_01ARZ3NDEKTSV4RRFFQ69G5FAV, or the beginning of its id; - is your newest.",
    ),
]
