"""The reshaped model and the judge, made in a process of their own: values of bfloat16, in files of float32.

A CPU without units for bfloat16 multiplies float32 nine times as fast, and a job computes in the dtype of its files.
"""

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
    _write(narrow, output, place)
    wide_HK = basis_HK.double()
    return {
        "variance": float((wide_HK.T @ moment_HH @ wide_HK).trace() / moment_HH.trace()),
        "dense_perplexity": perplexity(dense, held_out_NT),
        "perplexity": perplexity(narrow, held_out_NT),
        "parameters": [sum(each.numel() for each in model.parameters()) for model in (dense, narrow)],
    }


def round_values(spec: dict[str, Any]) -> dict[str, Any]:
    """Write the spec's `model` into `output` with its weights rounded to bfloat16; return their number."""
    place = Path(spec["model"])
    model = LlamaForCausalLM.from_pretrained(place, dtype=torch.float32, local_files_only=True)
    _write(model, Path(spec["output"]), place)
    return {"parameters": model.num_parameters()}


def _write(model: LlamaForCausalLM, output: Path, place: Path) -> None:
    """Round a model to values of bfloat16 and write it in float32, with the tokenizer of a folder."""
    model.bfloat16().float().save_pretrained(output)
    for file in (file for pattern in _COMPANIONS for file in place.glob(pattern)):
        shutil.copyfile(file, output / file.name)
