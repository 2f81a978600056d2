"""The judge, made in a process of its own: values of bfloat16, in files of float32.

A CPU without units for bfloat16 multiplies float32 nine times as fast, and a job computes in the dtype of its files.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from bench.evaluate_cell import perplexity
from bench.judge.rotation import rotated
from core.engine.models.tensors import load_tensors

_COMPANIONS = ("tokenizer*", "chat_template*", "special_tokens*", "generation_config*")
_GRID = 32
"""Weights of a row that share a scale in the file that the sample comes from."""


@torch.inference_mode()
def work(spec: dict[str, Any]) -> dict[str, Any]:
    """Write the spec's `model` in other axes into `output`; return what both are on windows of each of its `texts`.

    `perplexity` has those of the sample, the rotated model and the judge, which is rounded, by text. `levels` are the
    mean numbers of different values among 32 neighbours in a row, of the sample and of the judge.
    """
    place, output = Path(spec["model"]), Path(spec["output"])
    windows = {name: load_tensors(Path(file))["tokens"] for name, file in spec["texts"].items()}
    dense = LlamaForCausalLM.from_pretrained(place, dtype=torch.float32, local_files_only=True).eval()
    turned = rotated(dense)
    measured = {name: [perplexity(each, tokens_NT) for each in (dense, turned)] for name, tokens_NT in windows.items()}
    one_T = next(iter(windows.values()))[:1]
    difference = (turned(input_ids=one_T).logits - dense(input_ids=one_T).logits).abs().max()
    judge = turned.bfloat16().float()
    for name, tokens_NT in windows.items():
        measured[name].append(perplexity(judge, tokens_NT))
    judge.save_pretrained(output)
    for file in (file for pattern in _COMPANIONS for file in place.glob(pattern)):
        shutil.copyfile(file, output / file.name)
    return {
        "perplexity": measured,
        "logit_difference": float(difference),
        "levels": [levels(each) for each in (dense, judge)],
        "parameters": [each.num_parameters() for each in (dense, judge)],
    }


def levels(model: LlamaForCausalLM) -> float:
    """Return the mean number of different values among 32 neighbours in a row of the first layer's FFN."""
    parts = model.model.layers[0].mlp.up_proj.weight.unflatten(1, (-1, _GRID)).flatten(0, 1)
    ordered = parts.sort(dim=1).values
    return float(1 + (ordered.diff(dim=1) != 0).sum(dim=1).double().mean())
