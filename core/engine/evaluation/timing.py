"""Timing of models against one another: in turn, in one process, so that all run under the same conditions."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch

from core.counting import counted
from core.engine.models.accelerator import backend_of

ROUNDS = 3
NO_SPEED_UP = (
    "No speed-up is to be expected: zeros stored in dense tensors are multiplied like any other weight, and a sparse "
    "pattern is faster only on engines with kernels for it."
)

_Answer = TypeVar("_Answer")


def timed(call: Callable[[], _Answer], device: torch.device) -> tuple[_Answer, float]:
    """Return a call's result, and the milliseconds until its work on the device was complete."""
    backend = backend_of(device)
    backend.synchronise()
    start = time.perf_counter()
    answer = call()
    backend.synchronise()
    return answer, (time.perf_counter() - start) * 1000


def in_turn(contenders: Mapping[str, Callable[[], _Answer]], rounds: int = ROUNDS) -> dict[str, list[_Answer]]:
    """Return the results of each contender over rounds; every round calls each once, after one warm-up round."""
    answers: dict[str, list[_Answer]] = {name: [] for name in contenders}
    for round_ in counted(range(rounds + 1), "timing dense and pruned in turn by rounds"):
        for name, call in contenders.items():
            answer = call()
            if round_:
                answers[name].append(answer)
    return answers


def spread(times: Sequence[float]) -> float:
    """Return the slowest time over the fastest, minus 1."""
    return max(times) / min(times) - 1
