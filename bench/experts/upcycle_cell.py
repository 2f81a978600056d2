"""The mixture of the experts' bench, made in a process of its own and written as Qwen3-MoE and as Mixtral."""

import math
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel

from bench.evaluate_cell import perplexity
from bench.experts.layouts import as_mixtral
from bench.experts.plan import LAYOUTS, Recipe
from bench.experts.upcycle import mixtures, routers, upcycled, watched
from core.engine.models.tensors import load_tensors

_COMPANIONS = ("tokenizer*", "chat_template*", "special_tokens*")


def work(spec: dict[str, Any]) -> dict[str, Any]:
    """Make the mixture of the spec's `recipe` from its `model` and windows `texts`, and write it into `output`.

    The folders `qwen3-moe` and `mixtral` there open with the stock classes of transformers, in bfloat16.
    """
    recipe, place, output = Recipe(**spec["recipe"]), Path(spec["model"]), Path(spec["output"])
    texts = [load_tensors(Path(file))["tokens"] for file in spec["texts"]]
    held_out_NT = load_tensors(Path(spec["held_out"]))["tokens"]
    dense = LlamaForCausalLM.from_pretrained(place, dtype=torch.float32, local_files_only=True).eval()
    begun, processor = time.perf_counter(), time.process_time()
    mixture, losses = upcycled(dense, recipe, torch.stack(texts, dim=1).flatten(0, 1))
    seconds, processor_seconds = time.perf_counter() - begun, time.process_time() - processor
    for name, model in zip(LAYOUTS, (mixture, as_mixtral(mixture)), strict=True):
        folder = output / name
        model.bfloat16()
        model.save_pretrained(folder)
        for file in (file for pattern in _COMPANIONS for file in place.glob(pattern)):
            shutil.copyfile(file, folder / file.name)
    return {
        "recipe": asdict(recipe),
        "losses": losses,
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "dense_perplexity": perplexity(dense.to(torch.bfloat16), held_out_NT),
        "perplexity": perplexity(mixture, held_out_NT),
        "misrouted_perplexity": _misrouted(mixture, held_out_NT),
        "difference": difference(mixture, held_out_NT[:2]),
    }


@torch.inference_mode()
def difference(mixture: PreTrainedModel, tokens_NT: Tensor) -> dict[str, float]:
    """Return how much two experts differ in what they give the same tokens, mean over pairs, by layer.

    It is ‖f_a(x) − f_b(x)‖ as a share of the root of ‖f_a(x)‖·‖f_b(x)‖; 0 are copies, √2 is nothing in common.
    """
    with watched(mixture) as calls:
        mixture(input_ids=tokens_NT, use_cache=False)
    shares: dict[str, float] = {}
    for name, module in mixtures(mixture).items():
        (call,) = calls[name]
        given = [_given(module, call.hidden_NH, expert).float() for expert in range(len(module.down_proj))]
        pairs = [(one, other) for place, one in enumerate(given) for other in given[:place]]
        apart = [float((one - other).norm() / math.sqrt(one.norm() * other.norm())) for one, other in pairs]
        shares[name] = sum(apart) / len(apart)
    return shares


def _given(module: Any, hidden_NH: Tensor, expert: int) -> Tensor:
    gate_NI, up_NI = nn.functional.linear(hidden_NH, module.gate_up_proj[expert]).chunk(2, dim=-1)
    return nn.functional.linear(module.act_fn(gate_NI) * up_NI, module.down_proj[expert])


@torch.inference_mode()
def _misrouted(mixture: PreTrainedModel, tokens_NT: Tensor) -> float:
    """Return the perplexity where each token goes to the experts next to those that the router chose."""

    def roll(places: int) -> None:
        for router in routers(mixture):
            router.copy_(router.roll(places, 0))

    roll(1)
    found = perplexity(mixture, tokens_NT)
    roll(-1)
    return found
