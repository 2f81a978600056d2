"""Jobs that make models smaller, as the measurements that come with a release. Loads no torch."""

from collections.abc import Iterator
from datetime import date
from typing import Any, Final

from bench.cells import own_release
from bench.machine import describe_machine
from bench.measurements import spread
from bench.study_page import Results
from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.description import require_structure
from core.measurements.measurement import LatencyRatio, MeasuredModel, Measurement
from core.methods.registry import parse_parameters
from core.settings import Settings
from worker.samples.language import EVALUATION, MODEL

_TEXTS: Final = {"in_domain": EVALUATION, "out_of_domain": "debian-handbook"}


def measured(results: Results, threads: int) -> Iterator[Measurement]:
    """Yield a measurement of each row at each target, of the seeds there are."""
    model = inspect_folder(Settings().models_root / MODEL)
    share = require_structure(model).parameters / model.parameters
    for names in results.groups({}):
        body, jobs = results.planned[names[0]], [results.found[name] for name in names]
        metrics = [each["metrics"] for each in jobs]
        calibration = body.get("calibration") or {"dataset": None, "samples": 0, "sequence_length": 0}
        parameters = body.get("parameters", {})
        taken = parse_parameters(body["method"], parameters).split_calibration(calibration["samples"])
        latency = metrics[0].get("latency") or {}
        yield Measurement.model_validate(
            {
                "model": MeasuredModel(name=MODEL, family=model.family, parameters=model.parameters),
                "method": body["method"],
                "pattern": body["pattern"],
                "layout": body.get("output", {}).get("layout", "uniform"),
                "parameters": parameters,
                "recovery": body.get("recovery"),
                "calibration": calibration["dataset"],
                "calibration_tokens": sum(each or 0 for each in taken or (calibration["samples"],))
                * calibration["sequence_length"],
                "sparsity": body["sparsity"],
                "blocks": body["sparsity"] / share,
                "removed": 1 - sum(each["parameters"]["nonzero"] for each in metrics) / len(jobs) / model.parameters,
                "perplexity": {
                    key: spread([each["perplexity"][text]["ratio"] for each in metrics]) for key, text in _TEXTS.items()
                },
                "prefill": _ratio(latency, "pruned_ms", "dense_ms"),
                "decode": _ratio(latency, "decode_pruned_ms", "decode_dense_ms"),
                "seconds": spread([each["seconds"]["prune"] for each in metrics]),
                "processor_seconds": spread([each["processor_seconds"] for each in jobs]),
                "peak_bytes": max(each["peak_memory_bytes"] for each in metrics),
                "machine": describe_machine(),
                "threads": threads,
                "measured": date.today(),
                "releases": own_release(),
            }
        )


def _ratio(latency: dict[str, Any], pruned: str, dense: str) -> LatencyRatio | None:
    if not latency.get(pruned) or not latency.get(dense):
        return None
    ratio = latency[pruned] / latency[dense]
    return LatencyRatio(ratio=ratio, spread=ratio * (latency.get("noise") or 0.0))
