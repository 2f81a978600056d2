"""Job on an image classifier, whose network stays in memory: open, prune, recover, evaluate, write; or measure."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from core.engine.architectures.description import USUAL_SIDE, ClassifierDescription
from core.engine.architectures.structure import LinearShape
from core.engine.datasets.image_cache import ImageFiles, ImageSelection, open_images
from core.engine.datasets.image_set import ImageSet
from core.engine.datasets.preprocessing import read_preprocessing
from core.engine.evaluation.accuracy import Accuracy, measure_accuracy, measure_rounding
from core.engine.evaluation.classifier_reload_check import write_expected
from core.engine.evaluation.flops import count_flops
from core.engine.exporters.huggingface_classifier import round_to_stored, write_classifier
from core.engine.exporters.implementations import classifier_exporter, classifier_preparation
from core.engine.exporters.registry import EXPORTERS
from core.engine.models.classifier import ClassifierFolder, load_classifier, open_classifier
from core.engine.models.tensors import DTYPES
from core.engine.options.patterns import parse_pattern
from core.engine.options.sensitivity import Sensitivity
from core.engine.pruning.network import Network, weight_of, weights_of
from core.engine.pruning.retraining import retrain
from core.engine.recovery.request import RECOVERIES, Recovery
from core.engine.removals.weights import prunable_linears, selection_of
from core.engine.resume.store import JsonObject, ResumeStore, Runtime, fingerprint, tensors_sha256
from core.methods.classifiers.sensitivity import classifier_sensitivity
from core.methods.engine import build_classifier_method
from core.methods.registry import get_method, parse_parameters
from core.pipeline.dense_measurements import DenseMeasurements, dense_figures, releases
from core.pipeline.messages import ClassifierSpec, ImageSource, PruneOutput
from core.pipeline.reports.dense_figures import Facts
from core.pipeline.reports.equal_bytes import NARROW_CLASSIFIER, alternatives_to_pruning
from core.pipeline.reports.report import (
    EngineSettings,
    MethodFigures,
    RecoveryReport,
    Report,
    ReportedImages,
)
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.pruning_spec import PruneClassifierSpec
from core.pipeline.stages.report import (
    described_source,
    loss_curve,
    reported_model,
    sensitivity_output,
    versions,
)
from core.progress import PartialProgress, Progress
from secateur_wire import metrics as wire
from secateur_wire.errors import ZerosRefilled
from secateur_wire.metrics import Alternative, Metrics, Operations, Parameters, Sizes, Sparsity

_LIBRARIES = ("secateur-server", "torch", "transformers", "safetensors", "timm", "torch-pruning", "onnx", "onnxruntime")
VERIFIED_IMAGES = 100
"""Number of images whose logits the artifact is checked on, in both its forms."""
_PRUNED, _MEASURED = 0.45, 0.9
"""Progress of the task, as a share, at which recovery (if any) begins, and at which the measurement begins."""


@dataclass(frozen=True)
class Images:
    """Image sets of one job, opened."""

    calibration: ImageSet | None
    recovery: ImageSet | None
    evaluation: dict[str, ImageSet]

    @property
    def counts(self) -> dict[str, object]:
        """Return the number of images in each set, for the report."""
        return {
            "calibration": None if self.calibration is None else len(self.calibration),
            "recovery": None if self.recovery is None else len(self.recovery),
            "evaluation": {name: len(each) for name, each in self.evaluation.items()},
        }


def open_image_sets(
    spec: ClassifierSpec, folder: ClassifierFolder, recovery: Recovery | None, note: Callable[[str], None]
) -> Images:
    """Open the image sets of a job; `note` is called with remarks on irregular images."""
    recipe = spec.recipe
    preprocessing = read_preprocessing(folder.path, folder.raw_config, folder.description.image)

    def opened(source: ImageSource, choice: ImageSelection) -> ImageSet:
        place = ImageFiles(
            source.name, source.path, source.format, source.sha256, source.image_field, source.label_field
        )
        return open_images(
            place, preprocessing, folder.description.labels, choice=choice, cache=spec.work / "images", note=note
        )

    calibration = recovered = None
    if spec.calibration is not None:
        assert recipe.calibration is not None
        choice = ImageSelection(recipe.calibration.samples, recipe.calibration.seed, "calibration")
        calibration = opened(spec.calibration, choice)
    if spec.recovery is not None:
        assert recovery is not None
        recovered = opened(spec.recovery, ImageSelection(recovery.samples, recovery.seed, "recovery"))
    choice = ImageSelection(recipe.evaluation.samples)
    return Images(calibration, recovered, {each.name: opened(each, choice) for each in spec.evaluation})


def image_shape(folder: ClassifierFolder, images: Images) -> tuple[int, int, int]:
    """Return channels, height and width of the images that the model runs on: the job's, or else its config's."""
    for each in (*images.evaluation.values(), images.calibration, images.recovery):
        if each is not None:
            channels, height, width = each.batch([0]).shape[1:]
            return channels, height, width
    image = folder.description.image
    return image.channels, image.height or USUAL_SIDE, image.width or USUAL_SIDE


def prune_facts(spec: ClassifierSpec) -> JsonObject:
    """Return the facts that the rounds of a method depend on."""
    training = None
    if spec.recovery is not None and (recovery := spec.recipe.recovery) is not None:
        training = [spec.recovery.sha256, recovery.samples, recovery.seed]
    return {
        **spec.recipe.model_dump(mode="json", include={"method", "sparsity", "pattern", "parameters", "calibration"}),
        "revision": spec.model.revision,
        "images": None if spec.calibration is None else spec.calibration.sha256,
        "training": training,
    }


def resume_store(spec: ClassifierSpec, stage: str, facts: JsonObject, device: torch.device) -> ResumeStore:
    """Return the store that a stage resumes from; classifiers are float32."""
    return ResumeStore(spec.work, fingerprint(stage, facts, Runtime.of(device, torch.float32)), spec.previous)


def prune_classifier(spec: PruneClassifierSpec, context: StageContext) -> PruneOutput:
    """Prune a classifier or measure its sensitivity, as the recipe asks."""
    return measure_classifier(spec, context) if spec.recipe.measures else _prune(spec, context)


def _prune(spec: ClassifierSpec, context: StageContext) -> PruneOutput:
    """Prune a classifier, recover, measure and write it.

    Raises WorkStopped if it is asked to stop, after its progress is saved.
    """
    progress, device = context.progress, context.device
    progress.stage("open")
    recipe, notes = spec.recipe, list[str]()
    folder = open_classifier(spec.model.path)
    model = load_classifier(folder, device)
    recovery = recipe.recovery
    images = open_image_sets(spec, folder, recovery, notes.append)
    shape = image_shape(folder, images)
    parameters = recipe.parameters
    layers = prunable_linears(folder.description, selection_of(parameters))
    progress.stage("evaluate")
    figures = dense_figures(spec, progress)
    dense = _dense_accuracy(spec, folder, model, images.evaluation, figures)
    dense_flops = count_flops(model, shape)
    alternatives = _alternatives(folder, model, images)
    teacher = copy.deepcopy(model) if recovery and RECOVERIES[recovery.method].learns_from_model else None
    network = Network(
        model,
        layers,
        sparsity=recipe.sparsity or 0.0,
        pattern=parse_pattern(recipe.pattern),
        images=images.calibration,
        training=images.recovery,
        device=device,
        progress=PartialProgress(progress, end=_PRUNED if recovery else _MEASURED),
        store=resume_store(spec, "prune", prune_facts(spec), device),
        notes=notes,
    )
    prunes = get_method(recipe.method).prunes
    if prunes:
        progress.stage("prune")
        build_classifier_method(recipe.method, parameters).prune(network)
        model.eval()
    round_to_stored(model, folder)
    recovered: RecoveryReport | None = None
    before: dict[str, Accuracy] = {}
    if recovery is not None:
        assert images.recovery is not None
        before = dense
        if prunes:
            before = {name: measure_accuracy(model, each) for name, each in images.evaluation.items()}
        progress.stage("recover")
        recovered, zeros = _recover(spec, network, images.recovery, teacher, progress)
        round_to_stored(model, folder)
        _require_zeros(model, layers, zeros)
    progress.stage("evaluate")
    form, prepared = recipe.output.format, dict[str, JsonValue]()
    if EXPORTERS[form].changes_weights:
        prepared["accuracy_before"] = {
            name: measure_accuracy(model, each).top1 for name, each in images.evaluation.items()
        }
        prepared |= classifier_preparation(form).prepare(
            model, layers, folder, compression=recipe.output.compression, seed=parameters.seed
        )
    pruned = {name: measure_accuracy(model, each) for name, each in images.evaluation.items()}
    artifact_bytes = write_classifier(model, folder, spec.artifact)
    other_forms = {
        each.id: classifier_exporter(each.id).export(model, shape, spec.artifact)
        for each in EXPORTERS.values()
        if each.written == "beside" and folder.description.task in each.task_families
    }
    expected, peak = _write_expected(spec, model, images, shape), context.peak_memory()
    rows = [_row(model, layer) for layer in layers]
    metrics = _metrics(folder.description, model, rows)
    metrics.accuracy = {name: _pair(dense[name], pruned[name], before.get(name)) for name in images.evaluation}
    metrics.flops = Operations(dense=dense_flops, pruned=count_flops(model, shape))
    metrics.bytes = Sizes.model_validate({"dense": folder.description.bytes, "artifact": artifact_bytes, **other_forms})
    metrics.peak_memory_bytes = peak.of_model
    if alternatives and prunes:
        metrics.alternatives = alternatives
    report = Report(
        job=spec.job,
        attempt=spec.attempt,
        model=reported_model(spec.model, folder.description),
        layers=rows,
        images=ReportedImages.model_validate(
            {**_described_images(spec), "recovery": described_source(spec.recovery), "shape": shape}
            | {"counts": images.counts}
        ),
        method=MethodFigures.model_validate(network.figures),
        notes=list(dict.fromkeys(notes)),
        engine=EngineSettings.model_validate(_settings(device, folder.description)),
        versions=versions(*_LIBRARIES),
        peak_memory=peak,
    )
    if recovered is not None:
        report.recovery = recovered
    figures.write_to(report)
    if prepared:
        report.add_export(form, prepared)
    return PruneOutput(metrics=metrics, report=report, expected=expected)


def _alternatives(folder: ClassifierFolder, model: nn.Module, images: Images) -> list[Alternative]:
    """Return the copies of the dense model that need no pruning; their predictions are compared on a few real images.

    A whole evaluation of each would take half as long again.
    """
    alternatives = alternatives_to_pruning(folder.description)
    pixels_NCHW = _real_images(images)
    if not alternatives or pixels_NCHW is None:
        return alternatives
    model.eval()
    agreement = measure_rounding(model, pixels_NCHW, DTYPES[NARROW_CLASSIFIER])
    if agreement is None:
        return []
    compared = f"its predictions compared on {len(pixels_NCHW)} images"
    return [
        each.model_copy(update={"kl": agreement.kl, "top_1": agreement.top1, "basis": f"{each.basis}; {compared}"})
        for each in alternatives
    ]


def _real_images(images: Images) -> Tensor | None:
    """Return at most `VERIFIED_IMAGES` images of the job, spread over a set; None for a job without images."""
    real = next((each for each in (*images.evaluation.values(), images.calibration, images.recovery) if each), None)
    if real is None:
        return None
    count = min(VERIFIED_IMAGES, len(real))
    return real.batch(torch.arange(count) * len(real) // count)


def _write_expected(spec: ClassifierSpec, model: nn.Module, images: Images, shape: tuple[int, int, int]) -> Path:
    """Write the file of images and logits that the artifact is checked with; real images if the job has any."""
    pixels_NCHW = _real_images(images)
    if pixels_NCHW is None:
        pixels_NCHW = torch.randn(VERIFIED_IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    file = spec.work / "expected.safetensors"
    write_expected(model, pixels_NCHW, file)
    return file


def _dense_accuracy(
    spec: ClassifierSpec,
    folder: ClassifierFolder,
    model: torch.nn.Module,
    evaluation: Mapping[str, ImageSet],
    figures: DenseMeasurements,
) -> dict[str, Accuracy]:
    """Return the dense classifier's accuracy on each set, reused from an earlier job or measured."""
    sources = {each.name: each for each in spec.evaluation}
    accuracies = {}
    for name, images in evaluation.items():
        facts: Facts = {
            "model": spec.model.revision,
            "dataset": sources[name].sha256,
            "image_field": sources[name].image_field,
            "label_field": sources[name].label_field,
            "samples": len(images),
            "dtype": folder.description.dtype,
            "device": next(model.parameters()).device.type,
            **releases(),
        }
        known = figures.reuse("accuracy", name, facts)
        if known is not None:
            values = known.values
            accuracies[name] = Accuracy(values["top1"], values["loss"], int(values["samples"]))
            continue
        accuracies[name] = measure_accuracy(model, images)
        figures.add("accuracy", name, facts, asdict(accuracies[name]))
    return accuracies


def _recover(
    spec: ClassifierSpec,
    network: Network,
    images: ImageSet,
    teacher: nn.Module | None,
    progress: Progress,
) -> tuple[RecoveryReport, dict[str, Tensor]]:
    """Train; return the report's part on the training, and the required zeros of each layer."""
    recovery = spec.recipe.recovery
    assert recovery is not None and spec.recovery is not None
    pruned_weights = weights_of(network.model, [layer for layer in network.layers if _has_zeros(network.model, layer)])
    zeros = {name: each.detach() == 0 for name, each in pruned_weights.items()}
    facts = {
        "recovery": recovery.model_dump(mode="json"),
        "images": spec.recovery.sha256,
        "weights": tensors_sha256(*network.model.parameters()),
    }
    losses = retrain(
        network.model,
        images,
        recovery,
        pruned_weights,
        teacher=teacher,
        store=resume_store(spec, "recover", facts, network.device),
        progress=_TrainingProgress(progress, recovery.steps),
    )
    total = sum(layer.numel for layer in network.layers)
    kept = sum(int(mask.sum()) for mask in zeros.values())
    report = {
        "method": recovery.method,
        "trained": "every parameter",
        "trained_parameters": sum(each.numel() for each in network.model.parameters()),
        "steps": len(losses),
        "images": len(losses) * recovery.batch_size,
        "texts": [described_source(spec.recovery)],
        "loss": loss_curve(losses),
        "sparsity": {"before": kept / total, "after": kept / total},
    }
    return RecoveryReport.model_validate(report), zeros


class _TrainingProgress(PartialProgress):
    """Progress of training; the loss curve has some 200 points."""

    def __init__(self, outer: Progress, steps: int) -> None:
        super().__init__(outer, _PRUNED, _MEASURED)
        self._steps = steps

    def metric(self, name: str, step: int, value: float) -> None:
        if step % max(1, self._steps // 200) == 0 or step == self._steps:
            self.outer.metric(name, step, value)


def _has_zeros(model: nn.Module, layer: LinearShape) -> bool:
    return bool((weight_of(model, layer.name) == 0).any())


def _require_zeros(model: nn.Module, layers: list[LinearShape], zero_masks: dict[str, Tensor]) -> None:
    """Check that pruned weights stayed zero in recovery; raises ZerosRefilled with the first layer that fails."""
    for layer in layers:
        zeros = zero_masks.get(f"{layer.name}.weight")
        if zeros is not None and bool((weight_of(model, layer.name)[zeros] != 0).any()):
            raise ZerosRefilled(f"recovery refilled pruned weights of {layer.name}")


def _metrics(dense: ClassifierDescription, model: nn.Module, rows: Sequence[Mapping[str, Any]]) -> Metrics:
    """Return how much went of a classifier, by the rows of its layers."""
    zeros = sum(row["zeros"] for row in rows)
    pruned = dense.parameters - sum(each.numel() for each in model.parameters()) + zeros
    weights = sum(row["out_features"] * row["in_features"] for row in rows)
    return Metrics(
        perplexity={},
        sparsity=Sparsity(
            prunable=sum(row["removed"] + row["zeros"] for row in rows) / weights,
            model=pruned / dense.parameters,
        ),
        parameters=Parameters(dense=dense.parameters, nonzero=dense.parameters - pruned),
    )


def _row(model: nn.Module, layer: LinearShape) -> dict[str, Any]:
    """Return the row of a prunable layer in the report: its shape before and after, and its zeros."""
    weight = weight_of(model, layer.name)
    zeros, removed = int((weight == 0).sum()), layer.numel - weight.numel()
    return {
        **{name: getattr(layer, name) for name in ("name", "layer", "out_features", "in_features")},
        "kept_shape": list(weight.shape),
        "zeros": zeros,
        "removed": removed,
        "sparsity": (removed + zeros) / layer.numel,
    }


def _described_images(spec: ClassifierSpec) -> JsonObject:
    """Return the sets that a classifier was pruned and measured on, for the report."""
    return {
        "calibration": described_source(spec.calibration),
        "evaluation": {each.name: described_source(each) for each in spec.evaluation},
    }


def _settings(device: torch.device, description: ClassifierDescription) -> JsonObject:
    """Return the settings of the pass for the report; classifiers are float32."""
    return {"device": device.type, "model_dtype": description.dtype, "forward_dtype": "float32"}


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
    return sensitivity_output(
        spec,
        folder.description,
        sensitivity,
        context.peak_memory(),
        engine=_settings(device, folder.description),
        notes=notes,
        images=ReportedImages.model_validate(_described_images(spec)),
    )
