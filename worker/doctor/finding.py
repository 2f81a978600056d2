"""One finding of `secateur doctor`."""

from typing import Literal

from pydantic import BaseModel

State = Literal["ok", "warning", "missing"]
"""`missing`: something that is needed, or that a setting names, is not there. `warning`: it works, but not well."""


class Finding(BaseModel, frozen=True):
    """State of one thing that an installation needs: what it is, what was found, and what to do about it."""

    what: str
    state: State
    detail: str
    to_do: str | None = None


def ok(what: str, detail: str) -> Finding:
    return Finding(what=what, state="ok", detail=detail)


def warning(what: str, detail: str, to_do: str) -> Finding:
    return Finding(what=what, state="warning", detail=detail, to_do=to_do)


def missing(what: str, detail: str, to_do: str) -> Finding:
    return Finding(what=what, state="missing", detail=detail, to_do=to_do)
