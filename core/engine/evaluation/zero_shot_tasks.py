"""Zero-shot tasks of pruning papers, under their names in lm-evaluation-harness.

A local copy of a task's questions is one file of JSON lines, `TASK/SPLIT.jsonl`, with the columns of its hub dataset.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

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


_ARC = Paper(
    title="Think you have Solved Question Answering? Try ARC, the AI2 Reasoning Challenge",
    authors="Clark et al.",
    year=2018,
    url="https://arxiv.org/abs/1803.05457",
)
_CHOICES = ("choices", "answerKey")

_TASKS = (
    TaskInfo(
        id="boolq",
        title="BoolQ: yes or no, from a passage",
        paper=Paper(
            title="BoolQ: Exploring the Surprising Difficulty of Natural Yes/No Questions",
            authors="Clark et al.",
            year=2019,
            url="https://arxiv.org/abs/1905.10044",
        ),
        repository="aps/super_glue",
        config="boolq",
        columns=("passage", "question", "label"),
        metric="acc",
        documents=3270,
        tokens=145,
        longest=1292,
    ),
    TaskInfo(
        id="piqa",
        title="PIQA: which way of doing something works",
        paper=Paper(
            title="PIQA: Reasoning about Physical Commonsense in Natural Language",
            authors="Bisk et al.",
            year=2020,
            url="https://arxiv.org/abs/1911.11641",
        ),
        repository="baber/piqa",
        columns=("goal", "sol1", "sol2", "label"),
        metric="acc",
        documents=1838,
        tokens=70,
        longest=242,
    ),
    TaskInfo(
        id="hellaswag",
        title="HellaSwag: how a description goes on",
        paper=Paper(
            title="HellaSwag: Can a Machine Really Finish Your Sentence?",
            authors="Zellers et al.",
            year=2019,
            url="https://arxiv.org/abs/1905.07830",
        ),
        repository="Rowan/hellaswag",
        columns=("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        metric="acc_norm",
        documents=10042,
        tokens=315,
        longest=132,
    ),
    TaskInfo(
        id="winogrande",
        title="WinoGrande: whom a sentence means",
        paper=Paper(
            title="WinoGrande: An Adversarial Winograd Schema Challenge at Scale",
            authors="Sakaguchi et al.",
            year=2020,
            url="https://arxiv.org/abs/1907.10641",
        ),
        repository="allenai/winogrande",
        config="winogrande_xl",
        columns=("sentence", "option1", "option2", "answer"),
        metric="acc",
        documents=1267,
        tokens=45,
        longest=39,
    ),
    TaskInfo(
        id="arc_easy",
        title="ARC, easy set: science questions of schools",
        paper=_ARC,
        repository="allenai/ai2_arc",
        config="ARC-Easy",
        splits=("test", "validation"),
        columns=("question", *_CHOICES),
        metric="acc_norm",
        documents=2376,
        tokens=105,
        longest=105,
    ),
    TaskInfo(
        id="arc_challenge",
        title="ARC, challenge set: science questions of schools",
        paper=_ARC,
        repository="allenai/ai2_arc",
        config="ARC-Challenge",
        splits=("test", "validation"),
        columns=("question", *_CHOICES),
        metric="acc_norm",
        documents=1172,
        tokens=140,
        longest=131,
    ),
    TaskInfo(
        id="openbookqa",
        title="OpenBookQA: elementary science",
        paper=Paper(
            title="Can a Suit of Armor Conduct Electricity? A New Dataset for Open Book Question Answering",
            authors="Mihaylov et al.",
            year=2018,
            url="https://arxiv.org/abs/1809.02789",
        ),
        repository="allenai/openbookqa",
        config="main",
        splits=("test", "validation"),
        columns=("question_stem", *_CHOICES),
        metric="acc_norm",
        documents=500,
        tokens=50,
        longest=65,
    ),
)

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
