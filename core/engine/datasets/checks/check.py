"""Interface of a check: the reference as JSON, and the rule by which an answer passes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Reference = TypeVar("Reference")


@dataclass(frozen=True)
class Check(Generic[Reference]):
    """Rule that says of an answer whether it passes; lists are sorted by `rank`.

    `read` makes the reference from its JSON value and raises ValueError with the reason where it is no such reference.
    `verify` returns True where the answer passes.
    """

    id: str
    rank: int
    title: str
    read: Callable[[Any], Reference]
    verify: Callable[[str, Reference], bool]

    def passes(self, answer: str, reference: Any) -> bool:
        """Return True where the answer passes; `reference` is a JSON value; raises ValueError for a bad one."""
        return self.verify(answer, self.read(reference))
