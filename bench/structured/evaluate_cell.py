"""Perplexity, parameters and, where they are asked for, zero-shot accuracy of a checkpoint, whoever wrote it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench.cell_program import answer
from bench.evaluate_cell import perplexity
from bench.structured.opening import load
from core.engine.models.folder import open_model
from core.engine.models.tensors import load_tensors


def evaluate(spec: dict[str, Any]) -> dict[str, Any]:
    """Evaluate the spec's `model` on its `texts`, each windows of tokens [windows, time], and its `tasks`, files of
    questions; tied parameters count once.
    """
    place = Path(spec["model"])
    model = load(place)
    found = {
        "perplexity": {
            name: perplexity(model, load_tensors(Path(file))["tokens"]) for name, file in spec["texts"].items()
        },
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "config": json.loads((place / "config.json").read_text()) if (place / "config.json").exists() else None,
    }
    del model
    return found | {"tasks": _ask(place, spec) if spec["tasks"] else {}}


def _ask(place: Path, spec: dict[str, Any]) -> dict[str, dict[str, float]]:
    from core.engine.evaluation.zero_shot import measure_tasks  # slow to import

    with tempfile.TemporaryDirectory(prefix="tasks-") as work:
        return measure_tasks(
            open_model(place, own_artifact=True),
            {name: Path(file) for name, file in spec["tasks"].items()},
            limit=spec["task_limit"],
            work=Path(work),
            device=torch.device("cpu"),
            on_progress=lambda done: None,
        )


if __name__ == "__main__":
    answer(evaluate)
