"""The runner's task on an image classifier: open, prune, recover, evaluate, write."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from core.engine.architectures.layer_shape import LinearShape
from core.engine.datasets.image_cache import ImageFiles, ImageSelection, open_images
from core.engine.datasets.image_set import ImageSet
from core.engine.datasets.preprocessing import read_preprocessing
from core.engine.evaluation.accuracy import Accuracy, measure_accuracy
from core.engine.evaluation.classifier_reload_check import write_expected
from core.engine.evaluation.flops import count_flops
from core.engine.exporters.huggingface_classifier import round_to_stored, write_classifier
from core.engine.exporters.implementations import classifier_exporter, classifier_preparation
from core.engine.exporters.registry import EXPORTERS
from core.engine.models.classifier import ClassifierFolder, load_classifier, open_classifier
from core.engine.options.layer_selection import prunable_linears, selection_of
from core.engine.options.patterns import parse_pattern
from core.engine.pruning.iterative.retraining import retrain
from core.engine.pruning.network import Network, weight_of, weights_of
from core.engine.recovery.registry import RECOVERIES
from core.engine.recovery.request import Recovery
from core.engine.resume.fingerprint import Runtime, fingerprint, tensors_sha256
from core.engine.resume.store import JsonObject, ResumeStore
from core.errors import ZerosRefilled
from core.methods.engine import build_classifier_method
from core.methods.registry import get_method
from core.pipeline.messages import ClassifierSpec, ImageSource
from core.pipeline.reports.report import RecoveryReport
from core.pipeline.results import PruneOutput
from core.pipeline.stages.classifier_report import classifier_result, described_images
from core.pipeline.stages.dense import dense_accuracy, dense_figures
from core.pipeline.stages.recover import loss_curve
from core.progress import PartialProgress, Progress

VERIFIED_IMAGES = 100
"""Images whose logits the artifact is checked on, in both its forms."""
_PRUNED, _MEASURED = 0.45, 0.9
"""Shares of the task's progress at which recovery begins, where there is one, and what is left is measured."""


@dataclass(frozen=True)
class Images:
    """Image sets of one job, opened."""

    calibration: ImageSet | None
    recovery: ImageSet | None
    evaluation: dict[str, ImageSet]

    @property
    def counts(self) -> dict[str, Any]:
        """Return the number of images in each set, for the report."""
        return {
            "calibration": None if self.calibration is None else len(self.calibration),
            "recovery": None if self.recovery is None else len(self.recovery),
            "evaluation": {name: len(each) for name, each in self.evaluation.items()},
        }


def prune_classifier(spec: ClassifierSpec, *, device: torch.device, progress: Progress) -> PruneOutput:
    """Prune a classifier, recover and measure it, and write it.

    Raises WorkStopped once asked to stop and what it had done is saved.
    """
    progress.stage("open")
    recipe, notes = spec.recipe, list[str]()
    folder = open_classifier(spec.model.path)
    model = load_classifier(folder, device)
    recovery = recipe.recovery
    images = open_image_sets(spec, folder, recovery, notes.append)
    shape = _image_shape(folder, images)
    parameters = recipe.parameters
    layers = prunable_linears(folder.description, selection_of(parameters))
    progress.stage("evaluate")
    figures = dense_figures(spec, progress)
    dense = dense_accuracy(spec, folder, model, images.evaluation, figures, device)
    dense_flops = count_flops(model, shape)
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
        recovered, zeros = _recover(spec, folder, network, images.recovery, recovery, teacher, progress)
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
    output = classifier_result(
        spec,
        folder,
        network,
        accuracy={name: (dense[name], pruned[name], before.get(name)) for name in images.evaluation},
        flops=(dense_flops, count_flops(model, shape)),
        image_shape=shape,
        counts=images.counts,
        sizes={"artifact": artifact_bytes, **other_forms},
        recovered=recovered,
        expected=expected,
    )
    figures.write_to(output.report)
    if prepared:
        output.report.add_export(form, prepared)
    return output


def open_image_sets(
    spec: ClassifierSpec, folder: ClassifierFolder, recovery: Recovery | None, note: Callable[[str], None]
) -> Images:
    """Open the image sets of a job; remarks on their oddities go to `note`."""
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


def _image_shape(folder: ClassifierFolder, images: Images) -> tuple[int, int, int]:
    """Return channels, height and width of the images to run the model on: the job's, else its config's."""
    for each in (*images.evaluation.values(), images.calibration, images.recovery):
        if each is not None:
            channels, height, width = each.batch([0]).shape[1:]
            return channels, height, width
    image = folder.description.image
    return image.channels, image.height or 224, image.width or 224


def prune_facts(spec: ClassifierSpec) -> JsonObject:
    """Return what the rounds of a method depend on."""
    return {
        **spec.recipe.model_dump(mode="json", include={"method", "sparsity", "pattern", "parameters", "calibration"}),
        "revision": spec.model.revision,
        "images": None if spec.calibration is None else spec.calibration.sha256,
    }


def resume_store(spec: ClassifierSpec, stage: str, facts: JsonObject, device: torch.device) -> ResumeStore:
    """Return the store of what a stage resumes from; classifiers are float32."""
    return ResumeStore(spec.work, fingerprint(stage, facts, Runtime.of(device, torch.float32)), spec.previous)


def _recover(
    spec: ClassifierSpec,
    folder: ClassifierFolder,
    network: Network,
    images: ImageSet,
    recovery: Recovery,
    teacher: nn.Module | None,
    progress: Progress,
) -> tuple[RecoveryReport, dict[str, Tensor]]:
    """Train; return the report's part on it, and the zeros of each layer that had to stay."""
    assert spec.recovery is not None
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
        progress=_Training(progress, recovery.steps),
    )
    total = sum(layer.numel for layer in network.layers)
    kept = sum(int(mask.sum()) for mask in zeros.values())
    report = {
        "method": recovery.method,
        "trained": "every parameter",
        "trained_parameters": sum(each.numel() for each in network.model.parameters()),
        "steps": len(losses),
        "images": len(losses) * recovery.batch_size,
        "texts": [described_images(spec.recovery)],
        "loss": loss_curve(losses),
        "sparsity": {"before": kept / total, "after": kept / total},
    }
    return RecoveryReport.model_validate(report), zeros


class _Training(PartialProgress):
    """Progress of training, with some 200 points of its loss curve."""

    def __init__(self, outer: Progress, steps: int) -> None:
        super().__init__(outer, _PRUNED, _MEASURED)
        self._steps = steps

    def metric(self, name: str, step: int, value: float) -> None:
        if step % max(1, self._steps // 200) == 0 or step == self._steps:
            self.outer.metric(name, step, value)


def _has_zeros(model: nn.Module, layer: LinearShape) -> bool:
    return bool((weight_of(model, layer.name) == 0).any())


def _require_zeros(model: nn.Module, layers: list[LinearShape], zero_masks: dict[str, Tensor]) -> None:
    """Require that recovery left pruned weights zero. Raises ZerosRefilled naming the first layer where it did not."""
    for layer in layers:
        zeros = zero_masks.get(f"{layer.name}.weight")
        if zeros is not None and bool((weight_of(model, layer.name)[zeros] != 0).any()):
            raise ZerosRefilled(f"recovery refilled pruned weights of {layer.name}")


def _write_expected(spec: ClassifierSpec, model: nn.Module, images: Images, shape: tuple[int, int, int]) -> Path:
    """Write the file of images and logits to check the artifact with: real images where the job has any."""
    real = next((each for each in (*images.evaluation.values(), images.calibration, images.recovery) if each), None)
    if real is None:
        pixels_NCHW = torch.randn(VERIFIED_IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    else:
        count = min(VERIFIED_IMAGES, len(real))
        pixels_NCHW = real.batch(torch.arange(count) * len(real) // count)
    file = spec.work / "expected.safetensors"
    write_expected(model, pixels_NCHW, file)
    return file
