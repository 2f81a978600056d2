"""A promise: its short name, and a look at an installation that yields where it was broken."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from bench.chaos.observation import Observation, SeenJob, Violation

When = Literal["first", "lasting", "settling"]
"""A look at any time can find a promise of `lasting` broken for good; what `settling` finds may still be on its way, so
it counts once the time that is given to it is over. `first` is looked at before jobs are waited for."""

Broken = tuple[str, str | None]
"""Text that says why a promise is broken, and the id of its job, if it is about one."""
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Promise:
    """A promise of the service, which is in words the docstring of its function."""

    name: str
    when: When
    look: Callable[[Observation], Iterator[Broken]]

    def __call__(self, seen: Observation) -> Iterator[Violation]:
        """Yield where an installation broke it."""
        for text, job in self.look(seen):
            yield Violation(self.name, text, job)


_promises: list[Promise] = []


def promises(when: When) -> Sequence[Promise]:
    """Return the promises that are looked at then."""
    return [each for each in _promises if each.when == when]


def promise(name: str, when: When = "lasting") -> Callable[[Callable[[Observation], Iterator[Broken]]], Promise]:
    """Return a decorator that makes a promise of a function which looks at all there is."""

    def declare(look: Callable[[Observation], Iterator[Broken]]) -> Promise:
        _promises.append(Promise(name, when, look))
        return _promises[-1]

    return declare


def of_jobs(name: str, when: When = "lasting") -> Callable[[Callable[[SeenJob], Iterator[str]]], Promise]:
    """Return a decorator that makes a promise of a function which looks at one job."""
    return _of_each(name, when, lambda seen: ((each, each.id) for each in seen.jobs.values()))


def of_entries(kind: str, name: str) -> Callable[[Callable[[dict[str, Any]], Iterator[str]]], Promise]:
    """Return a decorator that makes a promise of a function which looks at one entry of the journal of this kind."""
    return _of_each(name, "lasting", lambda seen: ((each, each.get("job")) for each in seen.noted(kind)))


def _of_each(
    name: str, when: When, subjects: Callable[[Observation], Iterable[tuple[Subject, str | None]]]
) -> Callable[[Callable[[Subject], Iterator[str]]], Promise]:
    def declare(look: Callable[[Subject], Iterator[str]]) -> Promise:
        def each(seen: Observation) -> Iterator[Broken]:
            for subject, job in subjects(seen):
                for text in look(subject):
                    yield text, job

        return promise(name, when)(each)

    return declare
