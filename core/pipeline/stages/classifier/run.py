"""A job on an image classifier, whose network stays in memory: open, prune, recover, evaluate, write."""

import copy
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import nn

from core.engine.evaluation.accuracy import Accuracy, measure_accuracy
from core.engine.evaluation.classifier_reload_check import write_expected
from core.engine.evaluation.flops import count_flops
from core.engine.exporters.huggingface_classifier import round_to_stored, write_classifier
from core.engine.exporters.implementations import classifier_exporter, classifier_preparation
from core.engine.exporters.registry import EXPORTERS
from core.engine.models.classifier import load_classifier, open_classifier
from core.engine.options.patterns import parse_pattern
from core.engine.pruning.network import Network
from core.engine.recovery.registry import RECOVERIES
from core.engine.removals.weights.options import prunable_linears, selection_of
from core.methods.engine import build_classifier_method
from core.methods.registry import get_method
from core.pipeline.messages import ClassifierSpec, PruneOutput
from core.pipeline.reports.report import RecoveryReport
from core.pipeline.stages.classifier.images import Images, image_shape, open_image_sets
from core.pipeline.stages.classifier.recovery import (
    MEASURED,
    PRUNED,
    prune_facts,
    recover_classifier,
    require_zeros,
    resume_store,
)
from core.pipeline.stages.classifier.report import Measured, classifier_result, note_peak
from core.pipeline.stages.classifier.sensitivity import measure_classifier
from core.pipeline.stages.classifier.spec import PruneClassifierSpec
from core.pipeline.stages.dense import dense_accuracy, dense_figures
from core.pipeline.stages.run import StageContext
from core.progress import PartialProgress

VERIFIED_IMAGES = 100
"""Images whose logits the artifact is checked on, in both its forms."""


def run(spec: PruneClassifierSpec, context: StageContext) -> PruneOutput:
    """Prune a classifier, or measure its sensitivity, as the recipe asks."""
    return measure_classifier(spec, context) if spec.recipe.measures else _prune(spec, context)


def _prune(spec: ClassifierSpec, context: StageContext) -> PruneOutput:
    """Prune a classifier, recover and measure it, and write it.

    Raises WorkStopped once asked to stop and what it had done is saved.
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
    dense = dense_accuracy(spec, folder, model, images.evaluation, figures)
    dense_flops = count_flops(model, shape)
    teacher = copy.deepcopy(model) if recovery and RECOVERIES[recovery.method].learns_from_model else None
    network = Network(
        model,
        layers,
        sparsity=recipe.sparsity or 0.0,
        pattern=parse_pattern(recipe.pattern),
        images=images.calibration,
        device=device,
        progress=PartialProgress(progress, end=PRUNED if recovery else MEASURED),
        store=resume_store(spec, "prune", prune_facts(spec), device),
        notes=notes,
    )
    prunes = get_method(recipe.method).prunes
    if prunes:
        progress.stage("prune")
        build_classifier_method(recipe.method, parameters, recipe.pattern).prune(network)
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
        recovered, zeros = recover_classifier(spec, network, images.recovery, teacher, progress)
        round_to_stored(model, folder)
        require_zeros(model, layers, zeros)
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
    measured = Measured(
        accuracy={name: (dense[name], pruned[name], before.get(name)) for name in images.evaluation},
        flops=(dense_flops, count_flops(model, shape)),
        image_shape=shape,
        sizes={"artifact": artifact_bytes, **other_forms},
        counts=images.counts,
    )
    output = classifier_result(spec, folder, network, measured, expected)
    if recovered is not None:
        output.report.recovery = recovered
    figures.write_to(output.report)
    if prepared:
        output.report.add_export(form, prepared)
    note_peak(output.metrics, output.report, context.peak_memory())
    return output


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
