"""The reshaped model, made in a process of its own and written in bfloat16."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from bench.evaluate_cell import perplexity
from bench.judge.reshape import kept_basis, reshaped, stream_moment
from core.engine.models.tensors import load_tensors

_COMPANIONS = ("tokenizer*", "chat_template*", "special_tokens*")
_HELD_OUT = 8
"""Windows that nothing is fitted on."""
_FOR_AXES = 8
"""Windows that choose the axes."""


def work(spec: dict[str, Any]) -> dict[str, Any]:
    """Write the spec's `model` into `output` with `hidden` dimensions and `heads`, fitted on its windows `tokens`.

    Return the perplexities of both on windows that nothing was fitted on, and the share of the variance that was kept.
    """
    place, output = Path(spec["model"]), Path(spec["output"])
    tokens_NT = load_tensors(Path(spec["tokens"]))["tokens"]
    fitted_NT, held_out_NT = tokens_NT[_HELD_OUT:], tokens_NT[:_HELD_OUT]
    dense = LlamaForCausalLM.from_pretrained(place, dtype=torch.float32, local_files_only=True).eval()
    moment_HH = stream_moment(dense, fitted_NT[:_FOR_AXES])
    basis_HK = kept_basis(moment_HH, dense.model.norm.weight.detach(), spec["hidden"])
    narrow = reshaped(dense, basis_HK, spec["heads"], fitted_NT)
    narrow.to(torch.bfloat16).save_pretrained(output)
    for file in (file for pattern in _COMPANIONS for file in place.glob(pattern)):
        shutil.copyfile(file, output / file.name)
    wide_HK = basis_HK.double()
    return {
        "variance": float((wide_HK.T @ moment_HH @ wide_HK).trace() / moment_HH.trace()),
        "dense_perplexity": perplexity(dense, held_out_NT),
        "perplexity": perplexity(narrow.float(), held_out_NT),
        "parameters": [sum(each.numel() for each in model.parameters()) for model in (dense, narrow)],
    }
