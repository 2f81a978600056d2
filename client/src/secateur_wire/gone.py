"""Names that have left the product, and what to use in place of each."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

METHODS: Final[Mapping[str, str]] = {
    "alps": "'frontier' comes nearer to the dense model's outputs, and 'admm' solves the same problem"
}
"""Pruning methods by their ids."""

_TAG: Final = "mark such artifacts by their jobs' metadata, and keep them by 'keep_tagged'"
_TAYLOR: Final = "leave it out: 'filter-taylor' ranks by the Taylor criterion, and 'filter-l1' by norms or by chance"
FIELDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("keep_last", "keep_best"), _TAG),
    **dict.fromkeys(("ranking", "compare"), _TAYLOR),
    "answers.seed": "both models answer greedily, with the likeliest token, so that no seed is needed: leave it out",
    "recovery.until": "training ends after its 'steps' or its 'minutes', whichever comes first: give one of them",
}
"""Fields of requests by their names, or where others have the same name, by that of their object and theirs."""

DATASETS: Final[Mapping[str, str]] = {
    "simple-tasks": "register a set of conversations whose rows name a check and a reference (docs/checks.md), or "
    "name zero-shot tasks in evaluation.tasks"
}
"""Datasets that needed no registration, by their names up to a colon."""

_UNASKED: Final = {
    ("evaluation", "answers", "seed"): 0,
    ("recovery", "until"): None,
    ("parameters", "ranking"): "taylor",
    ("parameters", "compare"): False,
}
"""Defaults that stored bodies have of fields that have left."""


def without_unasked(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored job body without the fields that have left, where they have their defaults."""

    def left(part: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
        return {
            name: left(value, (*place, name)) if isinstance(value, Mapping) else value
            for name, value in part.items()
            if (*place, name) not in _UNASKED or value != _UNASKED[*place, name]
        }

    return left(body, ())


def successor_of(place: Sequence[int | str]) -> str | None:
    """Return what to use in place of a field that has left, by its place in a request; None for another field."""
    return FIELDS.get(str(place[-1])) or FIELDS.get(".".join(map(str, place[-2:])))


COMMANDS: Final[Mapping[str, str]] = {
    "part-costs": "a job with `target.engine` measures them itself, and its report shows what it reached",
    "triggers versions": "`secateur audit --action trigger.update` says who changed which fields; keep earlier "
    "definitions as files, by `secateur triggers show NAME --json`",
}
"""Commands of the command line, by their words."""

VALUES: Final[Mapping[tuple[str, str], str]] = {
    ("ridge", "auto"): "leave it out, which is 0.01 where weights become zero, and 0.1 where parts of a model go",
    ("conjugate_gradient", "auto"): "leave it out, which is 0, or give a number of steps, such as 10",
}
"""Values of fields, by the name of the field and the value."""

OF_THE_SDK: Final[Mapping[str, str]] = {
    "AsyncClient": "use `Client`, in an event loop by `asyncio.to_thread(client.wait, job_id)`"
}
"""Names of the Python client's module."""
