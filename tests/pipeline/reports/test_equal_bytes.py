"""The best dense file of no more bytes, and the error of the difference from it."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import pytest

from core.engine.datasets.window_losses import WindowLosses
from core.pipeline.reports.equal_bytes import (
    MeasuredFile,
    TextLosses,
    compare_at_equal_bytes,
)
from core.pipeline.reports.report import ARTIFACT, Report
from secateur_wire.equal_bytes import EqualBytes, in_words
from secateur_wire.metrics import Metrics

DENSE = (2.0, 2.2, 1.8, 2.4, 2.1)
PRUNED = (2.3, 2.4, 2.2, 2.5, 2.6)
WINDOWS = {"model": "r1", "dataset": "sha", "tokens": "t", "samples": 5, "sequence_length": 32}
TOKENS, BYTES = 155, 600


def report(pruned: Sequence[float] = PRUNED, **files: WindowLosses) -> Report:
    figure = {"kind": "perplexity", "name": "oak", "facts": WINDOWS | {"dtype": "bfloat16", "device": "cpu"}}
    figure |= {"values": {"perplexity": 8.0}, "window_losses": DENSE, "job": "job_a"}
    losses = {ARTIFACT: WindowLosses(losses=tuple(pruned)), **{f"{name}.gguf": each for name, each in files.items()}}
    return Report.model_validate(
        {"dense": {"figures": [figure]}, "window_losses": {name: {"oak": each} for name, each in losses.items()}}
    )


def metrics(**changes: Any) -> Metrics:
    bits = {"tokens": TOKENS, "bytes": BYTES}
    figures = {"dense": 8.0, "pruned": 11.0, "ratio": 1.375, "bits_per_byte": bits}
    sizes = {"dense": 1000, "artifact": 1000, "packed": 600}
    return Metrics.model_validate({"perplexity": {"oak": figures}, "bytes": sizes} | changes)


def dense(name: str, size: int, losses: Sequence[float], first: int = 0, **facts: Any) -> MeasuredFile:
    by_window = dict(enumerate(losses, first))
    return MeasuredFile(name, size, {"another name": TextLosses(WINDOWS | facts, by_window)}, "measured by job_b")


def compared(*known: MeasuredFile, **changes: Any) -> EqualBytes:
    measure = {"method": "none", "output": {}}
    return compare_at_equal_bytes(report(), metrics(**changes), known, measure)["oak"]


def test_the_best_file_of_no_more_bytes_is_compared_window_by_window() -> None:
    better = [each + 0.1 for each in DENSE]
    result = compared(dense("dense in int8", 600, better), dense("dense in int4", 300, PRUNED), dense("Q8", 601, DENSE))
    assert (result.file, result.bytes, result.dense, result.dense_bytes) == ("artifact", 600, "dense in int8", 600)
    differences = [one - other for one, other in zip(PRUNED, better, strict=True)]
    scale = TOKENS / BYTES / math.log(2)
    assert result.difference == pytest.approx(statistics.fmean(differences) * scale)
    assert result.stderr == pytest.approx(statistics.stdev(differences) / math.sqrt(5) * scale)
    assert (result.outcome, result.windows, result.reason) == ("worse", 5, None)
    assert "worse than the dense model in int8 (600 bytes) by" in in_words({"oak": result})


@pytest.mark.parametrize(
    ("losses", "outcome"),
    [([each + 0.2 for each in PRUNED], "better"), ([2.4, 2.3, 2.3, 2.4, 2.6], "within error")],
)
def test_a_lower_loss_is_better_and_one_within_the_error_is_neither(losses: list[float], outcome: str) -> None:
    assert compared(dense("dense in int4", 300, losses)).outcome == outcome


def test_files_are_compared_on_the_windows_that_both_have() -> None:
    result = compared(dense("dense in int4", 300, [1.0, 1.0, 1.0, 1.0], first=1))
    assert result.windows == 4
    assert result.difference == pytest.approx((sum(PRUNED[1:]) / 4 - 1.0) * TOKENS / BYTES / math.log(2))
    few = compared(dense("dense in int4", 300, [1.0, 1.0, 1.0], first=2))
    assert few.outcome is None and "too few for an error" in (few.reason or "")


def test_the_smallest_file_of_the_artifact_counts_where_it_was_measured() -> None:
    export = {"file": "small.gguf", "format": "gguf", "type": "Q4_K_M", "bytes": 200}
    known = dense("dense in int4", 300, DENSE), dense("tiny", 150, PRUNED)
    assert compared(*known, exports=[export]).file == "artifact", "its losses are not known"
    measured = report(small=WindowLosses(losses=(2.0, 2.0, 2.0, 2.0), windows=(0, 1, 3, 4)))
    result = compare_at_equal_bytes(measured, metrics(exports=[export]), known, None)["oak"]
    assert (result.file, result.dense, result.outcome, result.windows) == ("small.gguf", "tiny", "better", 4)


def test_nothing_is_guessed_where_no_such_file_was_measured_on_these_windows() -> None:
    for known in ((), (dense("dense in int4", 300, DENSE, samples=6),), (dense("Q8", 601, DENSE),)):
        result = compared(*known)
        assert result.outcome is None and result.difference is None and result.measure is not None
        assert "no dense file of at most 600 bytes was measured on these windows of oak" in (result.reason or "")
        assert "a job of method none with output {} measures one" in result.words
    unknown = compared(dense("dense in int4", 300, DENSE), perplexity={"oak": {"ratio": 1.2, "bits_per_byte": {}}})
    assert unknown.outcome is None and "bytes of oak are not known" in (unknown.reason or "")
    broken = compare_at_equal_bytes(report(pruned=()), metrics(), [dense("dense in int4", 300, DENSE)], None)["oak"]
    assert broken.outcome is None and "no file of the artifact has a finite loss" in (broken.reason or "")
