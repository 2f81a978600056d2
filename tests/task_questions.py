"""Tiny local copies of the zero-shot tasks, in their hub datasets' columns, with words a tiny tokenizer knows."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from core.engine.evaluation.zero_shot_tasks import TASKS

_LABELS = ("A", "B", "C", "D")


def questions(task: str, count: int = 12) -> list[dict[str, Any]]:
    """Questions without meaning, the same each time."""
    generator = np.random.default_rng(len(task))

    def words(number: int) -> str:
        return " ".join(f"w{word}" for word in generator.integers(4, 96, number))

    def choices() -> dict[str, list[str]]:
        return {"text": [words(2 + place) for place in range(4)], "label": list(_LABELS)}

    def row(index: int) -> dict[str, Any]:
        label = int(generator.integers(2))
        match task:
            case "boolq":
                return {"passage": words(8), "question": words(3), "label": label}
            case "piqa":
                return {"goal": words(4), "sol1": words(2), "sol2": words(4), "label": label}
            case "hellaswag":
                endings = [words(3) for _ in range(4)]
                about = {"activity_label": words(1), "ctx_a": words(3), "ctx_b": words(2)}
                return {**about, "endings": endings, "label": str(2 * label + index % 2)}
            case "winogrande":
                sentence = f"{words(3)} _ {words(3)}"
                return {"sentence": sentence, "option1": words(1), "option2": words(1), "answer": str(label + 1)}
            case "openbookqa":
                return {"question_stem": words(5), "choices": choices(), "answerKey": _LABELS[2 * label]}
            case _:
                return {"question": words(5), "choices": choices(), "answerKey": _LABELS[2 * label + 1]}

    return [row(index) for index in range(count)]


def write_questions(root: Path, task: str, count: int = 12) -> Path:
    """A local copy of the task's validation split under `root`."""
    file = root / task / "validation.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(question) + "\n" for question in questions(task, count)))
    assert "validation" in TASKS[task].splits
    return file
