"""Metrics and report of an image classifier after pruning and recovery."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from core.engine.architectures.description import ClassifierDescription
from core.engine.evaluation.accuracy import Accuracy
from core.engine.models.classifier import ClassifierFolder
from core.engine.pruning.network import Network, weight_of
from core.pipeline.messages import ClassifierSpec, PruneOutput
from core.pipeline.reports.report import (
    EngineSettings,
    MethodFigures,
    PeakMemory,
    Report,
    ReportedImages,
)
from core.pipeline.stages.report import described_source, reported_model, versions
from secateur_wire import metrics as wire
from secateur_wire.metrics import Metrics, Operations, Parameters, Sizes, Sparsity

_LIBRARIES = ("secateur-server", "torch", "transformers", "safetensors", "timm", "torch-pruning", "onnx", "onnxruntime")


@dataclass(frozen=True)
class ClassifierFigures:
    """Figures of a pruned classifier.

    `accuracy` holds, for each set, the accuracy of the dense and the pruned model and, if there was a recovery, the
    accuracy before it. `flops` are of one image of `image_shape`, dense and pruned. `sizes` are the bytes of the
    artifact's weights and of the forms written beside them. `counts` are the images of each set.
    """

    accuracy: Mapping[str, tuple[Accuracy, Accuracy, Accuracy | None]]
    flops: tuple[int, int]
    image_shape: tuple[int, int, int]
    sizes: Mapping[str, int]
    counts: Mapping[str, object]


def classifier_result(
    spec: ClassifierSpec, folder: ClassifierFolder, network: Network, measured: ClassifierFigures, expected: Path
) -> PruneOutput:
    """Return metrics and report of a pruned classifier; `expected` is the reload check's reference."""
    description = folder.description
    rows = _rows(network)
    zeros = sum(row.zeros for row in rows)
    remaining = sum(each.numel() for each in network.model.parameters())
    pruned = description.parameters - remaining + zeros
    metrics = Metrics(
        perplexity={},
        accuracy={name: _pair(*figures) for name, figures in measured.accuracy.items()},
        flops=Operations(dense=measured.flops[0], pruned=measured.flops[1]),
        sparsity=Sparsity(
            prunable=sum(row.removed + row.zeros for row in rows) / sum(layer.numel for layer in network.layers),
            model=pruned / description.parameters,
        ),
        parameters=Parameters(dense=description.parameters, nonzero=description.parameters - pruned),
        bytes=Sizes.model_validate({"dense": description.bytes, **measured.sizes}),
    )
    report = Report(
        job=spec.job,
        attempt=spec.attempt,
        model=reported_model(spec.model, description),
        layers=[asdict(row) for row in rows],
        images=ReportedImages.model_validate(
            {
                "calibration": described_source(spec.calibration),
                "recovery": described_source(spec.recovery),
                "evaluation": {each.name: described_source(each) for each in spec.evaluation},
                "shape": list(measured.image_shape),
                "counts": dict(measured.counts),
            }
        ),
        method=MethodFigures.model_validate(network.figures),
        notes=list(dict.fromkeys(network.notes)),
        engine=classifier_settings(network.device, description),
        versions=versions(*_LIBRARIES),
    )
    return PruneOutput(metrics=metrics, report=report, expected=expected)


def classifier_settings(device: torch.device, description: ClassifierDescription) -> EngineSettings:
    """Return the settings of the pass for the report; classifiers are float32."""
    return EngineSettings.model_validate(
        {"device": device.type, "model_dtype": description.dtype, "forward_dtype": "float32"}
    )


@dataclass(frozen=True)
class LayerShapeRow:
    """Prunable layer in the report: its shape before and after, and its zeros."""

    name: str
    layer: int
    out_features: int
    in_features: int
    kept_shape: list[int]
    zeros: int
    removed: int
    sparsity: float


def _rows(network: Network) -> list[LayerShapeRow]:
    """Return a row for each prunable layer: its shape before and after, and its zeros."""
    rows = []
    for layer in network.layers:
        weight = weight_of(network.model, layer.name)
        zeros = int((weight == 0).sum())
        remaining = weight.numel()
        rows.append(
            LayerShapeRow(
                name=layer.name,
                layer=layer.layer,
                out_features=layer.out_features,
                in_features=layer.in_features,
                kept_shape=list(weight.shape),
                zeros=zeros,
                removed=layer.numel - remaining,
                sparsity=(layer.numel - remaining + zeros) / layer.numel,
            )
        )
    return rows


def _pair(dense: Accuracy, pruned: Accuracy, before: Accuracy | None) -> wire.Accuracy:
    figures = wire.Accuracy(
        dense=dense.top1,
        pruned=pruned.top1,
        difference=pruned.top1 - dense.top1,
        dense_stderr=dense.standard_error,
        pruned_stderr=pruned.standard_error,
        dense_loss=dense.loss,
        pruned_loss=pruned.loss,
        samples=pruned.samples,
    )
    if before is not None:
        figures.before_recovery = before.top1
    return figures


def note_peak(metrics: Metrics, report: Report, peak: PeakMemory) -> None:
    """Store the peak memory of the process in metrics and report."""
    metrics.peak_memory_bytes = peak.of_model
    report.peak_memory = peak
