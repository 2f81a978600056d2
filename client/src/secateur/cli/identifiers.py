"""Shortened identifiers: arguments of commands, completed to ids before the command begins.

An id may be shortened to any unambiguous beginning, with or without the word before the underscore. `-` is the job that
the caller's key submitted last.
"""

import re
from collections.abc import Callable
from typing import Annotated, Final

import typer

from secateur.cli.output import age, connect
from secateur_wire.base import Page
from secateur_wire.identifiers import LENGTH, NEWEST, PREFIXES, Identifier, IdentifierKind

JOB_MODEL: Final = "job:"
"""Prefix of a model that is the artifact of a job."""


def complete(kind: IdentifierKind, *, is_name_too: bool = False) -> Callable[[str | None], str | None]:
    """Return a callback for an argument with an id of this kind; `is_name_too` if names are allowed too."""

    def complete_argument(given: str | None) -> str | None:
        is_name = is_name_too and given is not None and not given.startswith(f"{PREFIXES[kind]}_")
        return given if given is None or is_name else complete_identifier(kind, given)

    return complete_argument


def complete_object(given: str | None) -> str | None:
    """Complete an id of any kind, given by the word before its underscore."""
    for kind, word in PREFIXES.items():
        if given is not None and given.startswith(f"{word}_"):
            return complete_identifier(kind, given)
    return given


def complete_model(given: str | None) -> str | None:
    """Complete the id in a model that is the artifact of a job."""
    if given is None or not given.startswith(JOB_MODEL):
        return given
    return JOB_MODEL + complete_identifier("job", given.removeprefix(JOB_MODEL))


def complete_identifier(kind: IdentifierKind, given: str) -> str:
    """Return the only id with this beginning; a complete id and an unknown beginning are returned unchanged.

    Raises typer.BadParameter where no id or several ids begin so.
    """
    beginning = given.lower().removeprefix(f"{PREFIXES[kind]}_")
    is_newest = kind == "job" and given == NEWEST
    if not is_newest and (not re.fullmatch("0[0-9a-z]*", beginning) or len(beginning) >= LENGTH):
        return given
    with connect() as client:
        matches = client.identifiers(kind, NEWEST if is_newest else beginning)
    return only_one(kind, given, matches)


def only_one(kind: IdentifierKind, given: str, matches: Page[Identifier]) -> str:
    """Return the only id of the list; raises typer.BadParameter where it has none, or several."""
    if len(matches.data) == 1:
        return matches.data[0].id
    if not matches.data:
        raise typer.BadParameter(f"no {kind} has an id that begins with {given!r}")
    candidates = ", ".join(f"{each.id} ({age(each.created_at)})" for each in matches.data)
    raise typer.BadParameter(
        f"several have an id that begins with {given!r}: {candidates}{' and more' if matches.has_more else ''}; "
        "write more of it"
    )


JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        callback=complete("job"),
        help="The job, such as job_01ARZ3NDEKTSV4RRFFQ69G5FAV, or the beginning of its id; - is your newest.",
    ),
]
