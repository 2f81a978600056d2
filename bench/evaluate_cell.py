"""Perplexity and sparsity of a checkpoint, whoever wrote it: `from_pretrained` and a plain forward in float32.

The definition is the product's: exp of the mean negative log-likelihood of every token but a window's first. Zero-shot
tasks, where there are any, are asked as the product asks them.
"""

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.engine.architectures.describe import inspect_folder
from core.engine.models.folder import open_model
from core.engine.models.tensors import load_tensors


def evaluate(spec: dict[str, Any]) -> dict[str, Any]:
    """Evaluate the spec's `model` on its `texts`, each windows of tokens [windows, time], and its `tasks`, files of
    questions; sparsity is of the decoder's linears.
    """
    folder = Path(spec["model"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    perplexities = {name: perplexity(model, load_tensors(Path(file))["tokens"]) for name, file in spec["texts"].items()}
    weights = [model.get_submodule(linear.name).weight for linear in inspect_folder(folder).linears]
    sparsity = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    del model, weights
    return {"perplexity": perplexities, "sparsity": sparsity, "tasks": ask(folder, spec) if spec["tasks"] else {}}


@torch.inference_mode()
def perplexity(model: PreTrainedModel, tokens_NT: Tensor) -> float:
    """Of one text's windows."""
    total, count = 0.0, 0
    for window_1T in tokens_NT.split(1):
        logits_TV = model(input_ids=window_1T, use_cache=False).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits_TV, window_1T[0, 1:], reduction="sum"))
        count += len(logits_TV)
    return math.exp(total / count)


def ask(folder: Path, spec: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the accuracies of the spec's `tasks`."""
    from core.engine.evaluation.zero_shot import measure_tasks  # slow to import

    files = {name: Path(file) for name, file in spec["tasks"].items()}
    with tempfile.TemporaryDirectory(prefix="tasks-") as work:
        return measure_tasks(
            open_model(folder),
            files,
            limit=spec["task_limit"],
            work=Path(work),
            device=torch.device("cpu"),
            on_progress=lambda done: None,
        )
