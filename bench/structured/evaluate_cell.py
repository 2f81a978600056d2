"""Perplexity, parameters and, where they are asked for, zero-shot accuracy of a checkpoint, whoever wrote it."""

import json
from pathlib import Path
from typing import Any

from bench.cell_program import answer
from bench.evaluate_cell import ask, perplexity
from bench.structured.opening import load
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
    return found | {"tasks": ask(place, spec, own_artifact=True) if spec["tasks"] else {}}


if __name__ == "__main__":
    answer(evaluate)
