"""Losses of a file on the windows of an evaluation set, as its engine computes them."""

import math

import torch
from torch.nn import functional

from core.engine.datasets.counted_tokens import plain_ids, predicted_places
from core.engine.datasets.token_windows import EvaluationSet, evenly_spaced
from core.engine.datasets.window_losses import WindowLosses
from core.engine.exporters.engine import RunningEngine
from core.engine.exporters.sizes import MEASURED_TOKENS, WINDOW


def chosen_windows(text: EvaluationSet) -> tuple[int, ...]:
    """Return the numbers of the windows on which files are measured: all, or evenly spaced ones where they are many."""
    count, length = text.windows.shape
    return tuple(evenly_spaced(count, max(MEASURED_TOKENS // length, 1)))


def measure_losses(engine: RunningEngine, text: EvaluationSet) -> WindowLosses:
    """Return the losses of an open file on a set, a few tokens at a time; empty where one is not finite."""
    windows = chosen_windows(text)
    total = text.predicted if text.spans is None else sum(text.spans.counted)
    mean = total / len(text.windows)
    losses = tuple(_loss(engine, text, number) / mean for number in windows)
    if not all(map(math.isfinite, losses)):
        return WindowLosses(losses=())
    return WindowLosses(losses=losses, windows=None if len(windows) == len(text.windows) else windows)


def _loss(engine: RunningEngine, text: EvaluationSet, number: int) -> float:
    """Return the sum of the losses of a window's predicted tokens."""
    tokens_T = text.windows[number]
    places_P = predicted_places(tokens_T, None if text.spans is None else text.spans.spans[number])
    if not len(places_P):
        return 0.0
    ids_T = plain_ids(tokens_T)[: int(places_P[-1]) + 1]  # what follows the last prediction is not computed
    loss = 0.0
    for start in range(0, len(ids_T), WINDOW):
        end = min(start + WINDOW, len(ids_T))
        logits_RV = torch.from_numpy(engine.logits(ids_T[:end].tolist(), start=start).copy())
        here_P = places_P[(places_P >= start) & (places_P < end)]
        loss += float(functional.cross_entropy(logits_RV[here_P - start], tokens_T[here_P + 1], reduction="sum"))
    return loss
