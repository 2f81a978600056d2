"""Figures and report of a language model that was pruned, from what the pass found."""

from dataclasses import asdict
from pathlib import Path

from core.engine.architectures.description import ModelDescription
from core.engine.pruning.plan import PruningPlan
from core.engine.pruning.results import PruneResult
from core.pipeline.messages import PruneOutput
from core.pipeline.reports.report import EngineSettings, PeakMemory, Report
from core.pipeline.stages.prune.spec import PruneSpec
from core.pipeline.stages.report import described_text, reported_model, versions
from secateur_wire.metrics import Metrics, Parameters, Perplexity, Sizes, Sparsity


def prune_result(
    spec: PruneSpec,
    description: ModelDescription,
    plan: PruningPlan,
    result: PruneResult,
    *,
    artifact_bytes: int,
    peak: PeakMemory,
    calibration_shape: tuple[int, ...] | None,
    evaluation_shapes: dict[str, tuple[int, ...]],
    bos: bool | None,
) -> PruneOutput:
    """Return what pruning came to. Sizes in bytes."""
    metrics = Metrics(
        perplexity={
            name: Perplexity(
                dense=pair.dense,
                pruned=pair.pruned,
                ratio=pair.pruned / pair.dense,
                ratio_stderr=pair.ratio_stderr,
                sequence_length=evaluation_shapes[name][1],
            )
            for name, pair in result.perplexity.items()
        },
        sparsity=Sparsity(prunable=result.removed / result.prunable, model=result.removed / description.parameters),
        parameters=Parameters(dense=description.parameters, nonzero=description.parameters - result.removed),
        bytes=Sizes(dense=description.bytes, artifact=artifact_bytes),
        peak_memory_bytes=peak.of_model,
    )
    report = Report(
        job=spec.job,
        attempt=spec.attempt,
        model=reported_model(spec.model, description),
        layers=[asdict(row) for row in result.layers],
        layer_sparsities=list(result.sparsities),
        texts={
            "calibration": described_text(spec.calibration) if spec.calibration else None,
            "generated": described_text(spec.generated) if spec.generated else None,
            "evaluation": {text.name: described_text(text) for text in spec.evaluation},
        },
        notes=result.notes,
        tokens={
            "calibration": None if calibration_shape is None else list(calibration_shape),
            "evaluation": {name: list(shape) for name, shape in evaluation_shapes.items()},
            "windows": "non-overlapping; calibration shuffled by seed, evaluation evenly spaced over the text",
            "bos_begins_each_window": bos,
        },
        engine=EngineSettings.model_validate(
            {
                **plan.facts(),
                **({"refits": dict(result.refits)} if result.refits else {}),
                **({"micro_batches": list(result.micro_batches)} if result.micro_batches else {}),
                "resumed_from_block": result.resumed_from,
            }
        ),
        peak_memory=peak,
        **{name: [asdict(row) for row in rows] for name, rows in result.sections.items() if rows},
        versions=versions("secateur-server", "torch", "transformers", "safetensors"),
    )
    return PruneOutput(metrics=metrics, report=report, expected=Path(result.verification))
