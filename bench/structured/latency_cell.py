"""Prefill and decoding of dense and pruned, in turn in one process: ratios of each round, of the same machine."""

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.cell_program import answer
from bench.structured.opening import empty
from core.engine.evaluation.timing import in_turn
from core.engine.models.folder import open_model

DECODED = 16
"""Tokens decoded in a round; the median step counts."""


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Time the spec's dense `model` against a `config` (or `sliced_width`) over so many `rounds`; for prefill and
    decoding the median of the rounds' ratios, their interquartile range as `spread`, and milliseconds of the dense one.
    """
    dense = open_model(Path(spec["model"]))
    models = {
        "dense": empty(dense, dense.raw_config, None),
        "pruned": empty(dense, spec["config"], spec["sliced_width"]),
    }
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


if __name__ == "__main__":
    answer(measure)
