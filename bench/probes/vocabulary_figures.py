"""Figures of the removal of tokens that no path names, and those that come with a release. Loads no torch."""

from collections.abc import Iterator
from datetime import date
from math import exp
from typing import Final

from bench.cells import Figures, own_release
from bench.machine import describe_machine
from bench.measurements import spread
from bench.service import DOCUMENTATION, HANDBOOK
from bench.study_page import Results, Value
from core.engine.architectures.describe import describe_folder
from core.measurements.measurement import MeasuredModel, Measurement
from core.settings import Settings
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

_REDUCED: Final[dict[str, int | str]] = {"vocabulary": 16_384, "unused tokens": "auto"}


def part_of_gain(results: Results) -> Value | None:
    """Return the part of the gain in bytes that decoding gains, of the job that removes tokens alone."""
    for names in results.groups({"case": ["vocabulary"]}):
        export: Figures = next(iter(results.found[names[0]]["metrics"]["exports"]), {})
        if speed := export.get("speed"):
            return Value([(speed["decode"]["ratio"] - 1) / (speed["dense_bytes"] / export["bytes"] - 1)])
    return None


def measured(results: Results, threads: int) -> Iterator[Measurement]:
    """Yield the models that lost tokens alone as measurements of a release; of other texts the worst counts."""
    family = describe_folder(Settings().models_root / MODEL).family
    for name, tokens in _REDUCED.items():
        if (reduced := results.beside["reduced"].get(name)) is None:
            continue
        ratios = [_ratio_of(reduced["texts"][text]) for text in (EVALUATION, HANDBOOK, DOCUMENTATION)]
        dense, left = reduced["parameters"]
        yield Measurement(
            model=MeasuredModel(name=MODEL, family=family, parameters=dense),
            method="vocabulary",
            pattern="structured",
            parameters={"tokens": tokens},
            calibration=CALIBRATION,
            calibration_tokens=reduced["tokens"],
            sparsity=1 - left / dense,
            removed=1 - left / dense,
            perplexity={"in_domain": spread(ratios[:1]), "out_of_domain": spread([max(ratios[1:])])},
            seconds=spread([reduced["seconds"]]),
            processor_seconds=spread([reduced["processor_seconds"]]),
            peak_bytes=reduced["peak_bytes"],
            machine=describe_machine(),
            threads=threads,
            measured=date.fromisoformat(reduced["measured"]),
            releases=own_release(),
        )


def _ratio_of(losses: Figures) -> float:
    """Return the perplexity of a model that lost tokens ÷ the dense model's, per token of the dense model."""
    return exp((sum(losses["pruned"]) - sum(losses["dense"])) / losses["predicted"])
