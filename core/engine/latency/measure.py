"""Measurement of the costs of a model's parts in an engine: small models are timed in turn until times are known."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from core.discovery import require_class
from core.engine.exporters.engine import Seconds
from core.engine.latency import engines
from core.engine.latency.costs import DECODED_TOKENS, ModelWidths, PartCosts, RoundCosts, Workload
from core.engine.latency.design import fitted_costs, timed_layers, timed_shapes
from core.engine.latency.machine import machine_name
from core.engine.latency.model_widths import dense_shape, model_widths
from core.engine.latency.registry import engine_info
from core.engine.latency.timing import EngineTiming
from core.engine.latency.variants import BlockVariant, ModelShape
from core.engine.models.folder import ModelFolder
from secateur_wire.errors import LatencyTooNoisy

_TRIAL_SECONDS: Final = 60.0
_TRIALS: Final = 4
_MOST_ROUNDS: Final = 15
"""Bounds of the rounds: of a trial, and of trials until the spread is small."""
_ENOUGH: Final = 0.01
_TOO_NOISY: Final = 0.05
"""Relative standard errors of a latency: at the first no further trial is made, beyond the second there is no table."""


def timing_of(engine: str) -> EngineTiming:
    """Return the timing of an engine by its id."""
    return require_class(engines, engine, "timing", EngineTiming)()


def measured_costs(
    folder: ModelFolder,
    workload: Workload,
    *,
    place: Path | None = None,
    most_rounds: int = _MOST_ROUNDS,
    log: Callable[[str], None] = lambda line: None,
) -> PartCosts:
    """Measure the costs of the parts of a folder's model for a workload on this machine; takes minutes.

    Only the folder's config and the shapes of its tensors are read. `place` is a folder with room for files of about
    ten small models. At most `most_rounds` are made in each of a few trials. Raises LatencyTooNoisy where the times
    differ too much from round to round, InvalidRequest where the engine or its type of files cannot hold the model, and
    ExportFailed.
    """
    workload = workload.model_copy(update={"threads": workload.used_threads})
    info, widths = engine_info(workload.engine), model_widths(folder.description)
    info.check(folder.description, workload.type)
    version = info.version
    trial = workload.trial(most_rounds, _TRIAL_SECONDS)
    description = folder.description
    layer_bytes = description.prunable_parameters / description.layers * info.types[workload.type]
    layers = timed_layers(description.layers, layer_bytes, info.most_layers)
    shapes = timed_shapes(widths, layers, without_ffn=info.without_ffn)
    begun = time.monotonic()
    with TemporaryDirectory(dir=place, prefix="part-costs-") as temporary:
        log(f"writing {len(shapes)} models of {layers} layers for {info.title}")
        with timing_of(workload.engine).prepared(folder, shapes, workload, Path(temporary)) as timed:
            log(f"timing them in turn, {time.monotonic() - begun:.0f} s after the start")
            rounds: list[list[tuple[float, float]]] = [[] for _ in shapes]
            for _ in range(_TRIALS):
                for kept, seconds in zip(rounds, timed(trial), strict=True):
                    kept.extend(seconds)
                costs = costs_of_rounds(widths, shapes, rounds)
                table = PartCosts(
                    prefill=costs[0].prefill,
                    decode=costs[0].decode,
                    rounds=costs[1:],
                    workload=workload,
                    model=widths,
                    machine=machine_name(),
                    version=version,
                    measured_on=datetime.now(UTC).date(),
                    layers=layers,
                )
                error = relative_error(table, dense_shape(folder.description))
                log(f"{len(rounds[0])} rounds, {time.monotonic() - begun:.0f} s: standard error {error:.1%}")
                if error <= _ENOUGH:
                    break
    require_quiet(error, len(rounds[0]))
    return table


def costs_of_rounds(widths: ModelWidths, shapes: Sequence[ModelShape], seconds: Seconds) -> list[RoundCosts]:
    """Return the costs from the medians over rounds, then those from each round; `seconds` is `[model][round]`."""
    middle = [tuple(median(each) for each in zip(*rounds, strict=True)) for rounds in seconds]
    times = [middle, *zip(*seconds, strict=True)]
    return [
        RoundCosts(
            prefill=fitted_costs(widths, shapes, [1000 * prefill for prefill, _ in each]),
            decode=fitted_costs(widths, shapes, [1000 * decode / DECODED_TOKENS for _, decode in each]),
        )
        for each in times
    ]


def relative_error(costs: PartCosts, layers: Sequence[BlockVariant]) -> float:
    """Return the larger standard error of prefill and decode step, relative to them, of a model of half the FFN."""
    half = ModelShape(tuple(BlockVariant(groups, width // 2) for groups, width in layers), costs.model.vocabulary)
    pairs = zip(costs.standard_errors(half), costs.predict(half), strict=True)
    return max(error / latency if latency else float("inf") for error, latency in pairs)


def require_quiet(error: float, rounds: int) -> None:
    """Require that the standard error of a latency is small; raises LatencyTooNoisy."""
    if not (isfinite(error) and error <= _TOO_NOISY):
        raise LatencyTooNoisy(
            f"after {rounds} rounds the latency of a model is known to {error:.1%} only, but costs of parts need "
            f"{_TOO_NOISY:.0%}: use a worker without other work, or fewer threads than it has processors",
            param="engine",
        )
