"""Registry of the checks of answers, from the modules of `kinds`. It loads no torch."""

from typing import Any, Final

from core.discovery import declared
from core.engine.datasets.checks import kinds
from core.engine.datasets.checks.check import Check
from secateur_wire.errors import UnusableDataset

CHECKS: Final[dict[str, Check[Any]]] = {
    each.id: each for each in sorted(declared(kinds, "CHECK"), key=lambda each: each.rank)
}
"""Checks by id."""


def find_check(name: object, reference: Any, where: str) -> Check[Any]:
    """Return the check of a name, once the reference was read by it.

    `where` says where both stand, such as the file and the line. Raises UnusableDataset naming that place where there
    is no such check, or where the reference is none of its.
    """
    check = CHECKS.get(name) if isinstance(name, str) else None
    if check is None:
        raise UnusableDataset(
            f"{where}: there is no check {str(name)[:50]!r}; the checks are {', '.join(CHECKS)}", param="path"
        )
    try:
        check.read(reference)
    except ValueError as error:
        raise UnusableDataset(f"{where}: bad reference for the check {check.id!r}: {error}", param="path") from error
    return check
