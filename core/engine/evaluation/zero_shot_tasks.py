"""Zero-shot tasks of pruning papers, under their names in lm-evaluation-harness.

A local copy of a task's questions is one file of JSON lines, `TASK/SPLIT.jsonl`, with the columns of its hub dataset.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from secateur_wire.methods import Paper

_BYTES_PER_LOGIT = 8
"""Bytes of a logit and its log-softmax, in float32."""
_LARGEST_BATCH = 64


class TaskInfo(BaseModel):
    """Evaluation task. `metric` is the accuracy that is reported.

    In `acc_norm` each answer's log-likelihood is divided by its length in characters.

    `splits` are the possible splits of the questions, the one that papers report first. `columns` are the fields of a
    question. The rest serves estimates: `documents` counts the questions of the first split, `tokens` the tokens of an
    average question with all its answers as the forward passes see them, and `longest` those of the longest question
    with one answer.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    paper: Paper
    repository: str
    config: str | None = None
    splits: tuple[str, ...] = ("validation",)
    columns: tuple[str, ...]
    metric: Literal["acc", "acc_norm"]
    documents: int
    tokens: int
    longest: int


_TASKS = TypeAdapter(list[TaskInfo]).validate_json(Path(__file__).with_suffix(".json").read_bytes())
TASKS: dict[str, TaskInfo] = {task.id: task for task in _TASKS}


def local_copy(root: Path, task: TaskInfo) -> Path | None:
    """Return the local copy of the task's questions below `root`, from the first split that exists."""
    files = (root / task.id / f"{split}.jsonl" for split in task.splits)
    return next((file for file in files if file.is_file()), None)


def forward_tokens(tasks: Iterable[str], limit: int | None, examples: int = 0) -> int:
    """Return roughly the number of tokens that pass through one model, for at most `limit` questions of each task.

    With each answer go the `examples` before the question, each about as long as the question with an answer.
    """
    chosen = [TASKS[name] for name in tasks]
    return (1 + examples) * sum(task.tokens * min(limit or task.documents, task.documents) for task in chosen)


def longest_tokens(task: TaskInfo, examples: int = 0) -> int:
    """Return roughly the tokens of the longest question with one answer, and of the `examples` before it."""
    return task.longest + examples * min(task.tokens, task.longest)


def batch_size(longest: int, vocabulary: int, logits_bytes: int) -> int:
    """Return the number of answers scored together so that their logits fit a budget; `longest` is in tokens."""
    return min(max(logits_bytes // (longest * vocabulary * _BYTES_PER_LOGIT), 1), _LARGEST_BATCH)
