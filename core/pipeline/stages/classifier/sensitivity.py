"""Sensitivity of an image classifier: measure each layer alone, and write the figures and their chart."""

from core.engine.models.classifier import load_classifier, open_classifier
from core.engine.options.sensitivity_curves import Sensitivity
from core.engine.pruning.network import Network
from core.engine.removals.weights import prunable_linears, selection_of
from core.methods.classifier_sensitivity import classifier_sensitivity
from core.methods.registry import parse_parameters
from core.pipeline.messages import ClassifierSpec, PruneOutput
from core.pipeline.reports.report import Report, ReportedImages
from core.pipeline.stages.classifier.inputs import open_image_sets, prune_facts, resume_store
from core.pipeline.stages.classifier.report import classifier_settings, note_peak
from core.pipeline.stages.report import (
    NO_MODEL,
    described_source,
    reported_model,
    sensitivity_metrics,
    versions,
    write_sensitivity,
)
from core.pipeline.stages.run import StageContext
from core.progress import PartialProgress


def measure_classifier(spec: ClassifierSpec, context: StageContext) -> PruneOutput:
    """Measure a classifier's sensitivity: return metrics and report, and write figures and chart to the artifact.

    Raises WorkStopped if it is asked to stop, after the current layer is saved.
    """
    progress, device = context.progress, context.device
    progress.stage("open")
    notes: list[str] = []
    folder = open_classifier(spec.model.path)
    parameters = spec.recipe.parameters.sensitivity_options
    assert parameters is not None and parameters.pattern is not None
    inner = selection_of(parse_parameters(parameters.method, parameters.parameters, parameters.pattern))
    opened = open_image_sets(spec, folder, None, notes.append)
    ((dataset, images),) = opened.evaluation.items()
    network = Network(
        load_classifier(folder, device),
        prunable_linears(folder.description, inner),
        images=opened.calibration,
        device=device,
        progress=PartialProgress(progress, end=0.98),
        notes=notes,
    )
    (measured_on,) = spec.evaluation
    facts = prune_facts(spec) | {"evaluation": [measured_on.sha256, spec.recipe.evaluation.samples]}
    progress.stage("evaluate")
    dense, curves = classifier_sensitivity(
        network, images, parameters, resume_store(spec, "sensitivity", facts, device)
    )
    sensitivity = Sensitivity(
        task="image-classification",
        method=parameters.method,
        pattern=parameters.pattern,
        scope=parameters.scope,
        rates=parameters.rates or [],
        measured_on={"dataset": dataset, "images": len(images)},
        dense=dense,
        curves=curves,
    )
    write_sensitivity(sensitivity, spec.artifact)
    report = Report(
        job=spec.job,
        attempt=spec.attempt,
        model=reported_model(spec.model, folder.description),
        sensitivity=sensitivity.model_dump(mode="json"),
        images=ReportedImages.model_validate(
            {
                "calibration": described_source(spec.calibration),
                "evaluation": {each.name: described_source(each) for each in spec.evaluation},
            }
        ),
        notes=[*notes, NO_MODEL],
        engine=classifier_settings(device, folder.description),
        versions=versions("secateur-server", "torch", "transformers", "safetensors", "matplotlib"),
    )
    metrics = sensitivity_metrics(sensitivity)
    note_peak(metrics, report, context.peak_memory())
    return PruneOutput(metrics=metrics, report=report)
