"""Job on an image classifier, whose network stays in memory: open, prune, recover, evaluate, write."""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from core.engine.architectures.layer_shape import LinearShape
from core.engine.datasets.image_set import ImageSet
from core.engine.evaluation.accuracy import Accuracy, measure_accuracy, measure_rounding
from core.engine.evaluation.classifier_reload_check import write_expected
from core.engine.evaluation.flops import count_flops
from core.engine.exporters.huggingface_classifier import round_to_stored, write_classifier
from core.engine.exporters.implementations import classifier_exporter, classifier_preparation
from core.engine.exporters.registry import EXPORTERS
from core.engine.models.classifier import ClassifierFolder, load_classifier, open_classifier
from core.engine.models.tensors import DTYPES
from core.engine.options.patterns import parse_pattern
from core.engine.pruning.iterative.retraining import retrain
from core.engine.pruning.network import Network, weight_of, weights_of
from core.engine.recovery.registry import RECOVERIES
from core.engine.removals.weights import prunable_linears, selection_of
from core.engine.resume.fingerprint import tensors_sha256
from core.methods.engine import build_classifier_method
from core.methods.registry import get_method
from core.pipeline.dense_measurements import DenseMeasurements, dense_figures, releases
from core.pipeline.messages import ClassifierSpec, PruneOutput
from core.pipeline.reports.alternatives import NARROW_CLASSIFIER, alternatives_to_pruning
from core.pipeline.reports.dense_figures import Facts
from core.pipeline.reports.report import RecoveryReport
from core.pipeline.stages.classifier.inputs import Images, image_shape, open_image_sets, prune_facts, resume_store
from core.pipeline.stages.classifier.report import ClassifierFigures, classifier_result, note_peak
from core.pipeline.stages.classifier.sensitivity import measure_classifier
from core.pipeline.stages.classifier.spec import PruneClassifierSpec
from core.pipeline.stages.report import described_source, loss_curve
from core.pipeline.stages.run import StageContext
from core.progress import PartialProgress, Progress
from secateur_wire.errors import ZerosRefilled
from secateur_wire.metrics import Alternative

VERIFIED_IMAGES = 100
"""Number of images whose logits the artifact is checked on, in both its forms."""
_PRUNED, _MEASURED = 0.45, 0.9
"""Progress of the task, as a share, at which recovery (if any) begins, and at which the measurement begins."""


def run(spec: PruneClassifierSpec, context: StageContext) -> PruneOutput:
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
