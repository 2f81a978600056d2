"""Table of the calls that each kind of caller may make, for the page of the documentation site.

The OpenAPI document gives the role that a call needs. `tests/api/test_authorization.py` makes every call as every
caller, and compares the outcome with this table.
"""

from typing import Any, Final, get_args

from api.openapi.document import operations, required_role
from secateur_wire.teams import Role

ALLOWED: Final = "yes"
OWN: Final = "own"
"""The call is allowed; the caller sees or changes only objects of its own team."""

CALLERS: Final = (
    "no key",
    "expired key",
    "revoked key",
    "viewer",
    "member",
    "admin",
    "admin of another team",
)

_ROLES: Final[tuple[Role, ...]] = get_args(Role)
_INTRODUCTION: Final = """\
# Who may do what

Made from the OpenAPI document; a test makes every call as every caller and compares.

Every call of the API acts for the team of its key. People who sign in to the portal ([how](../sign-in.md)) have one of
the same roles in each of their teams, and the same rights on its pages. The columns are callers who name the things of
one team:

- **yes**: allowed. **own**: allowed, and sees or makes only what belongs to the caller's own team.
- **401**: no key, or one that is expired or revoked. **403**: the key's role does not allow the call.
- **404**, **422**: what belongs to another team is answered exactly as what does not exist.
"""


def expected(path: str, operation: dict[str, Any], caller: str, schemas: dict[str, Any]) -> str:
    """Return the expected outcome of a caller's call: `ALLOWED`, `OWN` or the status of the refusal."""
    needed = required_role(operation)
    if needed is None:
        return ALLOWED
    if caller in ("no key", "expired key", "revoked key"):
        return "401"
    if caller == "admin of another team":
        return "404" if _names_a_thing(path, operation) else "422" if _names_a_model(operation, schemas) else OWN
    allowed = _ROLES.index(_role(caller)) >= _ROLES.index(_role(needed))
    return ALLOWED if allowed else "403"


def _role(text: str) -> Role:
    return next(role for role in _ROLES if role == text)


def _names_a_thing(path: str, operation: dict[str, Any]) -> bool:
    """Return whether the call names an object by its id: in the path, or as jobs in a required query parameter."""
    return "{" in path or any(each["name"] == "job" for each in operation.get("parameters", []))


def _names_a_model(operation: dict[str, Any], schemas: dict[str, Any]) -> bool:
    contents = operation.get("requestBody", {}).get("content", {}).values()
    names = [content["schema"].get("$ref", "").rpartition("/")[2] for content in contents]
    return any("model" in schemas[name]["properties"] for name in names if name)


def page(document: dict[str, Any]) -> str:
    """Render the table with its introduction as Markdown."""
    rows = [["call", "needs", *CALLERS]]
    for method, path, operation in operations(document):
        cells = [expected(path, operation, caller, document["components"]["schemas"]) for caller in CALLERS]
        rows.append([f"`{method.upper()} {path}`", required_role(operation) or "–", *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return _INTRODUCTION + "\n" + "\n".join(f"| {line} |" for line in lines) + "\n"
