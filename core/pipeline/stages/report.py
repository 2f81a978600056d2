"""Parts of the report that several stages write."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from core.engine.architectures.description import Description
from core.engine.options.sensitivity import Sensitivity
from core.pipeline.messages import ImageSource, JobSpec, LanguageSpec, ModelSource, PruneOutput, TextSource
from core.pipeline.reports.report import EngineSettings, PeakMemory, Report, ReportedModel
from secateur_wire.base import JsonObject
from secateur_wire.metrics import LayerSensitivity, Metrics

FIGURES = "sensitivity.json"
CHART = "sensitivity.svg"
NO_MODEL = "Nothing was pruned and no model was made, so there is none to reload, verify or time."
LOSS_POINTS = 200
"""Largest number of points of a loss curve; each point is the mean of the steps since the point before."""


def reported_model(source: ModelSource, description: Description) -> ReportedModel:
    """Return the model for the report: the description from its headers, without long parts."""
    described = description.model_dump(mode="json", exclude={"linears", "labels", "discovered"})
    return ReportedModel.model_validate({"name": source.name, "revision": source.revision} | described)


def versions(*libraries: str) -> dict[str, str]:
    """Return the versions of Python and of libraries."""
    return {"python": platform.python_version()} | {name: version(name) for name in libraries}


def described_source(source: TextSource | ImageSource | None) -> JsonObject | None:
    """Describe a text or image set, if there is one: its name and hash and, for one from the hub, its commit."""
    if source is None:
        return None
    return {"name": source.name, "sha256": source.sha256, **source.origin}


def described_texts(spec: LanguageSpec, *, calibrates: bool = True) -> JsonObject:
    """Describe the texts that a language model was pruned and measured on."""
    return {
        "calibration": described_source(spec.calibration) if calibrates else None,
        "generated": described_source(spec.generated) if calibrates else None,
        "evaluation": {each.name: described_source(each) for each in spec.evaluation},
    }


def loss_curve(losses: Sequence[float]) -> list[tuple[int, float]]:
    """Return (steps done, mean loss) at up to LOSS_POINTS points, including the last step; empty without losses."""
    if not losses:
        return []
    stride = loss_stride(len(losses))
    ends = [*range(stride, len(losses), stride), len(losses)]
    return [(end, mean_loss(losses[start:end])) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def loss_stride(steps: int) -> int:
    """Return the number of steps between two points of a loss curve."""
    return max(1, -(-steps // LOSS_POINTS))


def mean_loss(losses: Sequence[float]) -> float:
    """Return the mean of losses."""
    return sum(losses) / len(losses)


def sensitivity_output(
    spec: JobSpec,
    description: Description,
    sensitivity: Sensitivity,
    peak: PeakMemory,
    *,
    engine: JsonObject,
    notes: Sequence[str],
    **sections: Any,
) -> PruneOutput:
    """Write the figures of a measured sensitivity and their chart, and return the job's metrics and report.

    `sections` of the report say what was read. The metrics have the dense model's figures, and the layer that lost most
    at the highest rate.
    """
    from core.pipeline.reports.charts import sensitivity_chart  # slow to load, and only these jobs need it

    spec.artifact.mkdir(parents=True, exist_ok=True)
    (spec.artifact / FIGURES).write_text(sensitivity.model_dump_json(indent=2, exclude_none=True) + "\n", "utf-8")
    (spec.artifact / CHART).write_text(sensitivity_chart(sensitivity), "utf-8")
    most = max(sensitivity.curves, key=lambda curve: curve.points[-1].loss)
    metrics = Metrics(
        sensitivity=LayerSensitivity(
            dense=sensitivity.dense.model_dump(mode="json", exclude_none=True),
            layers=len(sensitivity.curves),
            rates=len(sensitivity.rates),
            most_sensitive=most.name,
        ),
        peak_memory_bytes=peak.of_model,
    )
    report = Report(
        job=spec.job,
        attempt=spec.attempt,
        model=reported_model(spec.model, description),
        sensitivity=sensitivity.model_dump(mode="json"),
        notes=[*notes, NO_MODEL],
        engine=EngineSettings.model_validate(engine),
        peak_memory=peak,
        versions=versions("secateur-server", "torch", "transformers", "safetensors", "matplotlib"),
        **sections,
    )
    return PruneOutput(metrics=metrics, report=report)
