"""Simple tasks: drawn by a seed, read as conversations, and passed by their own answers alone."""

from itertools import islice
from pathlib import Path

import pytest

from core.engine.datasets.chat.conversations import LeftOutRows, read_conversations
from core.engine.datasets.checks.registry import CHECKS
from core.engine.datasets.simple_tasks.registry import (
    ALL_TASKS,
    SIMPLE_TASKS,
    draw_conversations,
    named_tasks,
    write_conversations,
)


def test_a_file_of_tasks_is_a_set_of_conversations_the_same_for_a_seed(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one.jsonl", "same.jsonl", "other.jsonl")]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        write_conversations(file, list(SIMPLE_TASKS), seed, 20)
    one, same, other = (file.read_bytes() for file in files)
    assert one == same != other
    left_out = LeftOutRows()
    with files[0].open("rb") as stream:
        read = list(read_conversations(stream, "tasks", "chat_jsonl", left_out))
    assert len(read) == 20 and not left_out.total
    assert [each.check for each in read[: len(SIMPLE_TASKS)]] == [task.check for task in SIMPLE_TASKS.values()]


@pytest.mark.parametrize("task", SIMPLE_TASKS)
def test_the_right_answer_passes_and_no_example_gives_it_away(task: str) -> None:
    drawn = list(islice(draw_conversations([task], 5), 40))
    for row in drawn:
        turns = row["messages"]
        questions = [turn["content"] for turn in turns if turn["role"] == "user"]
        assert len(questions) == len(set(questions)) >= 2
        assert CHECKS[row["check"]].passes(turns[-1]["content"], row["reference"])
    wrong = [row for row in drawn if row["reference"] != drawn[0]["reference"]]
    assert wrong and not any(
        CHECKS[row["check"]].passes(drawn[0]["messages"][-1]["content"], row["reference"]) for row in wrong
    )


def test_a_set_is_named_by_its_task() -> None:
    assert named_tasks(ALL_TASKS) == tuple(SIMPLE_TASKS)
    assert named_tasks(f"{ALL_TASKS}:add") == ("add",)
    assert named_tasks(f"{ALL_TASKS}:fly") == named_tasks(f"{ALL_TASKS}:") == ()
    assert named_tasks("my-tasks") is None
