"""Perplexity and sparsity of a checkpoint, whoever wrote it: `from_pretrained` and a plain forward in float32.

The definition is the product's: exp of the mean negative log-likelihood of every token but a window's first.
"""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bench.cell_program import answer
from core.catalogue.model_folder import inspect_folder
from core.models.weights import load_tensors


@torch.inference_mode()
def evaluate(spec: dict[str, Any]) -> dict[str, Any]:
    """Evaluate the spec's `model` on its windows of tokens [sequences, time]; sparsity is of the decoder's linears."""
    folder = Path(spec["model"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    total, count = 0.0, 0
    for window_1T in load_tensors(Path(spec["tokens"]))["tokens"].split(1):
        logits_TV = model(input_ids=window_1T, use_cache=False).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits_TV, window_1T[0, 1:], reduction="sum"))
        count += len(logits_TV)
    weights = [model.get_submodule(linear.name).weight for linear in inspect_folder(folder).linears]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return {"perplexity": math.exp(total / count), "sparsity": zeros / sum(weight.numel() for weight in weights)}


if __name__ == "__main__":
    answer(evaluate)
