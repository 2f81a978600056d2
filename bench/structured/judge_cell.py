"""Judges of the structured bench's checkpoints: models of one shape, and of layers in different shapes."""

import json
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.evaluate_cell import ask, perplexity
from core.engine.evaluation.timing import in_turn
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import build_model, load_model
from core.engine.models.tensors import load_tensors

DECODED = 16
"""Tokens decoded in a round; the median step counts."""


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


def measure_speed(spec: dict[str, Any]) -> dict[str, Any]:
    """Time the spec's dense `model` against a `config` over so many `rounds`; for prefill and
    decoding the median of the rounds' ratios, their interquartile range as `spread`, and milliseconds of the dense one.
    """
    dense = open_model(Path(spec["model"]))
    models = {"dense": empty(dense, dense.raw_config), "pruned": empty(dense, spec["config"])}
    words = min(100, dense.description.vocabulary_size)
    tokens_1T = torch.randint(words, (1, spec["length"]), generator=torch.Generator().manual_seed(0))
    times = in_turn({name: partial(once, model, tokens_1T) for name, model in models.items()}, spec["rounds"])
    return {
        name: _compared([each[place] for each in times["dense"]], [each[place] for each in times["pruned"]])
        for place, name in enumerate(("prefill", "decode"))
    }


@torch.inference_mode()
def once(model: PreTrainedModel, tokens_1T: Tensor) -> tuple[float, float]:
    """Milliseconds of a prefill, and of a decoding step with the cache."""
    begun = time.perf_counter()
    output = model(input_ids=tokens_1T, use_cache=True, logits_to_keep=1)
    prefill = time.perf_counter() - begun
    steps = []
    for _ in range(DECODED):
        following = output.logits[:, -1:].argmax(-1)
        begun = time.perf_counter()
        output = model(input_ids=following, cache=output.cache, use_cache=True)
        steps.append(time.perf_counter() - begun)
    return 1000 * prefill, 1000 * statistics.median(steps)


def _compared(dense: list[float], pruned: list[float]) -> dict[str, float]:
    ratios = [mine / other for mine, other in zip(pruned, dense, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {"ratio": statistics.median(ratios), "spread": high - low, "dense_ms": statistics.median(dense)}


def load(place: Path) -> PreTrainedModel:
    """A checkpoint's model in float32."""
    return load_model(open_model(place, own_artifact=True), torch.device("cpu"), dtype=torch.float32)


def empty(dense: ModelFolder, config: dict[str, Any]) -> PreTrainedModel:
    """A model of that shape with random weights, which run as fast as any: no checkpoint is needed."""
    folder = replace(dense, config=type(dense.config).from_dict(config))
    model = build_model(folder, torch.float32)
    model.eval().requires_grad_(False)
    return model
