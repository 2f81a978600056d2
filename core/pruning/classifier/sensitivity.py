"""Sensitivity of a classifier: loss and accuracy when one layer alone is pruned, for each layer and rate."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from core.catalogue.compatibility import parse_parameters
from core.catalogue.linear_shape import LinearShape
from core.catalogue.patterns import parse_pattern
from core.catalogue.sensitivity import SensitivityCurve, SensitivityPoint
from core.catalogue.sensitivity_parameters import SensitivityParameters
from core.data.images import ImageSet
from core.pruning.boundaries import read_state
from core.pruning.classifier.scan import loss_and_accuracy, scan
from core.pruning.classifier.scene import Observer, Scene
from core.pruning.methods.classifiers import build_classifier_method

SAVED = "curves.json"
"""In an attempt's folder: the curves of the layers that are done."""


def classifier_sensitivity(
    scene: Scene,
    images: ImageSet,
    parameters: SensitivityParameters,
    *,
    work: Path,
    previous: Sequence[Path] = (),
    fingerprint: str = "",
) -> tuple[SensitivityPoint, list[SensitivityCurve]]:
    """The dense model's point, and the curve of each of the scene's layers; `scene.images` are those to calibrate on.

    After each layer its curve is saved in `work`; those an earlier attempt of the same `fingerprint` left in one of the
    `previous` folders are taken from there. The model is as it was afterwards. Raises RecoveryStopped between layers
    where asked to stop.
    """
    assert parameters.rates is not None
    dense_loss, dense_accuracy = loss_and_accuracy(scene, images)
    curves = _saved((work, *previous), fingerprint)
    method = build_classifier_method(parameters.method, parse_parameters(parameters.method, parameters.parameters))
    pattern = parse_pattern(parameters.pattern)
    sparsities: dict[float, float] = {}

    def prune_layer(shape: LinearShape, rate: float) -> None:
        alone = replace(
            scene, layers=[shape], sparsity=rate, pattern=pattern, rounds=None, figures={}, notes=[],
            observer=Observer(should_stop=scene.observer.should_stop),
        )  # fmt: skip
        method.prune(alone)
        scene.notes += [note for note in alone.notes if note not in scene.notes]
        weight = scene.module(shape.name).weight
        assert isinstance(weight, torch.Tensor)
        sparsities[rate] = float((weight == 0).float().mean())

    for shape in scene.layers[len(curves) :]:
        found = scan(replace(scene, layers=[shape]), images, parameters.rates, prune_layer)[shape.name]
        points = [
            SensitivityPoint(rate=rate, sparsity=sparsities[rate], loss=loss, accuracy=accuracy)
            for rate, loss, accuracy in found
        ]
        curves.append(SensitivityCurve(name=shape.name, layer=shape.layer, weights=shape.numel, points=points))
        _save(work, fingerprint, curves)
        scene.observer.on_progress(len(curves) / len(scene.layers))
    return SensitivityPoint(rate=0, sparsity=0, loss=dense_loss, accuracy=dense_accuracy), curves


def _save(work: Path, fingerprint: str, curves: Sequence[SensitivityCurve]) -> None:
    record = {"fingerprint": fingerprint, "curves": [curve.model_dump() for curve in curves]}
    partial = work / f"{SAVED}.partial"
    partial.write_text(json.dumps(record))
    partial.replace(work / SAVED)


def _saved(folders: Sequence[Path], fingerprint: str) -> list[SensitivityCurve]:
    """Of the first folder that has any with this fingerprint."""
    for folder in folders:
        record = read_state(folder / SAVED)
        if record is not None and record["fingerprint"] == fingerprint:
            return [SensitivityCurve.model_validate(curve) for curve in record["curves"]]
    return []
