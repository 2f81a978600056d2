"""Job on an image classifier, whose network stays in memory: open, prune, recover, evaluate, write; or measure."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

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
    PeakMemory,
    RecoveryReport,
    Report,
    ReportedImages,
)
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.pruning_spec import PruneClassifierSpec
from core.pipeline.stages.report import (
    NO_MODEL,
    described_source,
    loss_curve,
    reported_model,
    sensitivity_metrics,
    versions,
    write_sensitivity,
)
from core.progress import PartialProgress, Progress
from secateur_wire import metrics as wire
from secateur_wire.errors import ZerosRefilled
from secateur_wire.metrics import Alternative, Metrics, Operations, Parameters, Sizes, Sparsity

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
    expected = _write_expected(spec, model, images, shape)
    measured = ClassifierFigures(
        accuracy={name: (dense[name], pruned[name], before.get(name)) for name in images.evaluation},
        flops=(dense_flops, count_flops(model, shape)),
        image_shape=shape,
        sizes={"artifact": artifact_bytes, **other_forms},
        counts=images.counts,
    )
    output = classifier_result(spec, folder, network, measured, expected)
    if alternatives and prunes:
        output.metrics.alternatives = alternatives
    if recovered is not None:
        output.report.recovery = recovered
    figures.write_to(output.report)
    if prepared:
        output.report.add_export(form, prepared)
    note_peak(output.metrics, output.report, context.peak_memory())
    return output


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
