"""Latency of dense and pruned, measured in turn in one process so that both run under the same conditions."""

import statistics
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from core.engine.evaluation.forward_memory import DECODED_STEPS, timed_tokens, timing_bytes
from core.engine.evaluation.timing import NO_SPEED_UP, ROUNDS, in_turn, spread, timed
from core.engine.models.accelerator import backend_of
from core.engine.models.folder import ModelFolder
from core.engine.models.generation import cache_name
from core.engine.models.loading import load_model
from secateur_wire.errors import OutOfMemory
from secateur_wire.metrics import is_noisy, latency_noise


def measure_latency(
    dense: ModelFolder, pruned: ModelFolder, *, sequence_length: int, device: torch.device
) -> tuple[dict[str, Any], dict[str, PreTrainedModel]]:
    """Measure dense against pruned; return the figures, and the models that were loaded for them, by name.

    The figures are the result of `DenseLatency.against` as `latency`, and `notes`. Raises OutOfMemory where the two
    models do not both fit.
    """
    clock = DenseLatency(dense, sequence_length=sequence_length, device=device, other_bytes=pruned.description.bytes)
    loaded = load_model(pruned, device)
    latency = clock.against(loaded)
    is_smaller = pruned.description.parameters < dense.description.parameters
    figures = {"latency": latency, "notes": [*([] if is_smaller else [NO_SPEED_UP]), *_measured(latency)]}
    return figures, {"dense": clock.model, "pruned": loaded}


class DenseLatency:
    """Loaded dense model. Other models are timed in turn with it, on one sequence of up to 2048 tokens."""

    def __init__(self, dense: ModelFolder, *, sequence_length: int, device: torch.device, other_bytes: int) -> None:
        """Load the dense model; raises OutOfMemory where the largest other model, of `other_bytes`, would not fit."""
        description = dense.description
        needed, free = timing_bytes(description, other_bytes, sequence_length), backend_of(device).free_bytes()
        if needed > free:
            raise OutOfMemory(
                f"the dense and the pruned model together need about {needed} bytes, but {free} are "
                f"free on {device.type}"
            )
        self.device = device
        self.model = load_model(dense, device)
        self._words = min(100, description.vocabulary_size)
        length = timed_tokens(description, sequence_length)
        tokens = torch.randint(self._words, (1, length), generator=torch.Generator().manual_seed(0))
        self._tokens_1T = tokens.to(device)

    def against(self, pruned: PreTrainedModel) -> dict[str, Any]:
        """Time a prefill of the sequence and a decoding step with the cache, in milliseconds, medians over rounds.

        `dense_ms` and `pruned_ms` are the times of the prefill. `spread` is its slowest round over the fastest, minus
        1; `dense_spread` is the dense model's alone, and decode steps have the same two. `noise` is the relative
        difference below which two times do not count as different.
        """
        models = {"dense": self.model, "pruned": pruned}
        embeddings: Any = pruned.get_input_embeddings()
        tokens_1T, rows = self._tokens_1T, int(embeddings.weight.shape[0])
        if rows < self._words:  # the vocabulary became very small
            tokens_1T = tokens_1T % rows
        times = in_turn({name: partial(_time_once, model, tokens_1T, self.device) for name, model in models.items()})
        prefill = {name: [first for first, _ in each] for name, each in times.items()}
        decode = {name: [rest for _, rest in each] for name, each in times.items()}
        spreads, decode_spreads = ({name: spread(each) for name, each in times.items()} for times in (prefill, decode))
        return {
            "dense_ms": statistics.median(prefill["dense"]),
            "pruned_ms": statistics.median(prefill["pruned"]),
            "decode_dense_ms": statistics.median(decode["dense"]),
            "decode_pruned_ms": statistics.median(decode["pruned"]),
            "spread": max(spreads.values()),
            "dense_spread": spreads["dense"],
            "decode_spread": max(decode_spreads.values()),
            "decode_dense_spread": decode_spreads["dense"],
            "noise": latency_noise(max(spreads.values())),
            "rounds": ROUNDS,
            "sequence_length": self._tokens_1T.shape[1],
            "device": self.device.type,
        }


def _measured(latency: dict[str, Any]) -> list[str]:
    ratio = latency["pruned_ms"] / latency["dense_ms"]
    if abs(ratio - 1) > latency["noise"] and not is_noisy(latency["noise"]):
        return [f"Measured prefill of the pruned model took {ratio:.2f} × the dense one's time."]
    return []


@torch.inference_mode()
def _time_once(model: PreTrainedModel, tokens_1T: torch.Tensor, device: torch.device) -> tuple[float, float]:
    name = cache_name(model)
    answer, prefill = timed(lambda: model(input_ids=tokens_1T, use_cache=True, logits_to_keep=1), device)
    steps = []
    for _ in range(DECODED_STEPS):
        step = partial(model, input_ids=answer.logits[:, -1:].argmax(-1), use_cache=True, **{name: answer[name]})
        answer, milliseconds = timed(step, device)
        steps.append(milliseconds)
    return prefill, statistics.median(steps)
