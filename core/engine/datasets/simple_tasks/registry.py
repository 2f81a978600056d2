"""Registry of simple tasks, from the modules of `kinds`, and sets of them as conversations."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from core.discovery import declared
from core.engine.datasets.simple_tasks import kinds
from core.engine.datasets.simple_tasks.simple_task import SimpleTask
from secateur_wire.base import JsonObject

SIMPLE_TASKS: Final[dict[str, SimpleTask]] = {
    each.id: each for each in sorted(declared(kinds, "TASK"), key=lambda each: each.rank)
}
"""Simple tasks by id."""

ALL_TASKS: Final = "simple-tasks"
"""Name of the dataset of all simple tasks; that of one of them is `simple-tasks:ID`."""


def named_tasks(dataset: str) -> tuple[str, ...] | None:
    """Return the ids of the tasks that a dataset's name stands for; None where it is not one of simple tasks.

    An unknown id gives no task.
    """
    name, _, task = dataset.partition(":")
    if name != ALL_TASKS:
        return None
    return tuple(each for each in SIMPLE_TASKS if dataset == ALL_TASKS or each == task)


def draw_conversations(tasks: Sequence[str], seed: int) -> Iterator[JsonObject]:
    """Yield conversations of the tasks without end, one of each in turn; the same for the same tasks and seed."""
    drawn = [SIMPLE_TASKS[task].conversations(seed) for task in tasks]
    while True:
        for each in drawn:
            yield next(each)


def write_conversations(file: Path, tasks: Sequence[str], seed: int, rows: int) -> None:
    """Write a JSONL file (`chat_jsonl`) with the first `rows` conversations of the tasks."""
    lines = (json.dumps(row) + "\n" for row in islice(draw_conversations(tasks, seed), rows))
    file.write_text("".join(lines), encoding="utf-8")
