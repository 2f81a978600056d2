"""Latency of dense and pruned, measured in turn in one process so that both meet the same machine."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from core.errors import OutOfMemory
from core.models.folder import ModelFolder
from core.models.memory import free_bytes
from core.models.per_layer import load_model

_ROUNDS = 3
_DECODE_TOKENS = 8
_LONGEST = 2048
# A relative difference below this is within what two runs of one model differ by.
_NOISE = 0.05


def measure_latency(
    dense: ModelFolder, pruned: ModelFolder, *, sequence_length: int, device: torch.device
) -> dict[str, Any]:
    """Milliseconds of a prefill of one sequence and of a decoding step with the cache, medians over rounds.

    Returns `latency` (dense_ms, pruned_ms of the prefill; decode figures; their spread) and `notes`. Raises OutOfMemory
    where dense and pruned do not both fit.
    """
    _check_room(dense, pruned, device)
    models = {name: load_model(folder, device) for name, folder in (("dense", dense), ("pruned", pruned))}
    description = dense.description
    length = min(sequence_length, _LONGEST, description.context_length - _DECODE_TOKENS)
    words = min(100, description.vocabulary_size)
    tokens = torch.randint(words, (1, max(length, 1)), generator=torch.Generator().manual_seed(0)).to(device)
    prefill: dict[str, list[float]] = {name: [] for name in models}
    decode: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(_ROUNDS + 1):
        for name, model in models.items():
            first, rest = _time_once(model, tokens, device)
            if round_:  # the first round warms up
                prefill[name].append(first)
                decode[name].append(rest)
    latency = {
        "dense_ms": statistics.median(prefill["dense"]),
        "pruned_ms": statistics.median(prefill["pruned"]),
        "decode_dense_ms": statistics.median(decode["dense"]),
        "decode_pruned_ms": statistics.median(decode["pruned"]),
        "spread": max(max(each) / min(each) - 1 for each in prefill.values()),
        "rounds": _ROUNDS,
        "sequence_length": tokens.shape[1],
        "device": device.type,
    }
    is_smaller = pruned.description.parameters < description.parameters
    return {"latency": latency, "notes": [*([] if is_smaller else [_NO_SPEED_UP]), *_measured(latency)]}


_NO_SPEED_UP = (
    "No speed-up is to be expected: zeros stored in dense tensors are multiplied like any other weight, and a sparse "
    "pattern is faster only on engines with kernels for it."
)


def _measured(latency: dict[str, Any]) -> list[str]:
    ratio = latency["pruned_ms"] / latency["dense_ms"]
    if abs(ratio - 1) > max(_NOISE, latency["spread"]):
        return [f"Measured prefill of the pruned model took {ratio:.2f} × the dense one's time."]
    return []


@torch.inference_mode()
def _time_once(model: PreTrainedModel, tokens_1T: torch.Tensor, device: torch.device) -> tuple[float, float]:
    def timed(call: Callable[[], Any]) -> tuple[Any, float]:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        answer = call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return answer, (time.perf_counter() - start) * 1000

    answer, prefill = timed(lambda: model(input_ids=tokens_1T, use_cache=True, logits_to_keep=1))
    steps = []
    for _ in range(_DECODE_TOKENS):
        following = answer.logits[:, -1:].argmax(-1)
        cache = answer.past_key_values
        answer, step = timed(lambda: model(input_ids=following, past_key_values=cache, use_cache=True))  # noqa: B023
        steps.append(step)
    return prefill, statistics.median(steps)


def _check_room(dense: ModelFolder, pruned: ModelFolder, device: torch.device) -> None:
    needed = int(1.2 * (dense.description.bytes + pruned.description.bytes))
    free = free_bytes(device)
    if needed > free:
        raise OutOfMemory(f"dense and pruned together need about {needed} bytes, {free} are free on {device.type}")
