"""Sensitivity of a classifier (Han 2015, arXiv:1506.02626): loss and accuracy when one layer alone is pruned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from core.counting import counted
from core.engine.architectures.structure import LinearShape
from core.engine.datasets.image_set import ImageSet
from core.engine.options.axes import SensitivityOptions
from core.engine.options.patterns import parse_pattern
from core.engine.options.sensitivity import SensitivityCurve, SensitivityPoint
from core.engine.pruning.network import Network, loss_and_accuracy
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.resume.kinds import CURVES
from core.engine.resume.store import ResumeStore, Saved
from core.methods.classifiers.coupled_channels import CoupledChannels
from core.methods.classifiers.filters import FilterMethod
from core.methods.engine import build_classifier_method
from core.methods.registry import parse_parameters
from core.progress import Progress

Curve = list[tuple[float, float, float]]
"""Points of a curve: (rate, mean cross-entropy in nats, top-1 accuracy)."""


@dataclass(frozen=True)
class _Unit:
    """Layer, or group of coupled channels with `weights` parameters, that is pruned alone."""

    name: str
    layer: int
    weights: int
    measure: Callable[[], list[SensitivityPoint]]


class _OneLayerProgress(Progress):
    """Progress of pruning one layer alone: it reports nothing, but stops when the whole job is asked to stop."""

    def __init__(self, outer: Progress) -> None:
        self._outer = outer

    def should_stop(self) -> bool:
        return self._outer.should_stop()


def classifier_sensitivity(
    network: Network,
    images: ImageSet,
    parameters: SensitivityOptions,
    store: ResumeStore,
) -> tuple[SensitivityPoint, list[SensitivityCurve]]:
    """Measure the dense model's point, and the curve of each of the network's layers.

    Methods that remove filters have a curve for each group of coupled channels whose layers are all among these layers.
    `network.images` are the calibration images.

    The curve of each layer is saved in `store`; curves saved by an earlier attempt are not measured again. The model is
    restored afterwards. Raises WorkStopped between two layers if the job is asked to stop.
    """
    assert parameters.rates is not None and parameters.pattern is not None
    dense_loss, dense_accuracy = loss_and_accuracy(network, images)
    saved = store.load(CURVES)
    curves = (
        [SensitivityCurve.model_validate(curve) for curve in saved.state["curves"]] if isinstance(saved, Saved) else []
    )
    own = parse_parameters(parameters.method, parameters.parameters, parameters.pattern)
    method = build_classifier_method(parameters.method, own)
    if isinstance(method, FilterMethod):
        units = _groups(network, images, method, parameters.rates)
    else:
        units = _layers(network, images, method, parameters)
    for unit in counted(units[len(curves) :], "measuring layers"):
        network.progress.raise_if_stopped()
        points = unit.measure()
        curves.append(SensitivityCurve(name=unit.name, layer=unit.layer, weights=unit.weights, points=points))
        store.save(CURVES, len(curves), {}, {"curves": [curve.model_dump() for curve in curves]})
        network.progress.advance(len(curves) / len(units))
    return SensitivityPoint(rate=0, sparsity=0, loss=dense_loss, accuracy=dense_accuracy), curves


def layer_sensitivity_curves(
    network: Network, images: ImageSet, rates: Sequence[float], prune_layer: Callable[[LinearShape, float], None]
) -> dict[str, Curve]:
    """Return the curve of each of the network's layers, by name: the loss against the rate at which it alone is pruned.

    All other layers stay dense, and nothing is retrained (Han 2015, figure 6; Li 2016, section 3.2). `prune_layer`
    prunes one layer of `network.model` to a rate, and changes nothing else; the layer is restored afterwards. Raises
    WorkStopped between layers when the job is stopped.
    """
    curves: dict[str, Curve] = {}
    for shape in counted(network.layers, "scanning layers"):
        network.progress.raise_if_stopped()
        layer = network.module(shape.name)
        dense = {name: each.clone() for name, each in layer.state_dict().items()}
        curves[shape.name] = []
        for rate in rates:
            try:
                prune_layer(shape, rate)
                curves[shape.name].append((rate, *loss_and_accuracy(network, images)))
            finally:
                layer.load_state_dict(dense)
        network.progress.log(f"sensitivity of {shape.name} measured")
    return curves


def _layers(
    network: Network, images: ImageSet, method: ClassifierMethod, parameters: SensitivityOptions
) -> list[_Unit]:
    """Return a unit for every layer; the method prunes each in a network that has only this layer."""
    assert parameters.rates is not None and parameters.pattern is not None
    rates, pattern = parameters.rates, parse_pattern(parameters.pattern)
    sparsities: dict[float, float] = {}

    def prune_layer(shape: LinearShape, rate: float) -> None:
        alone = replace(network, layers=[shape], sparsity=rate, pattern=pattern, store=None, figures={}, notes=[])
        method.prune(replace(alone, progress=_OneLayerProgress(network.progress)))
        network.notes += [note for note in alone.notes if note not in network.notes]
        weight = network.module(shape.name).weight
        assert isinstance(weight, torch.Tensor)
        sparsities[rate] = float((weight == 0).float().mean())

    def measure(shape: LinearShape) -> list[SensitivityPoint]:
        curve = layer_sensitivity_curves(replace(network, layers=[shape]), images, rates, prune_layer)[shape.name]
        return [
            SensitivityPoint(rate=rate, sparsity=sparsities[rate], loss=loss, accuracy=accuracy)
            for rate, loss, accuracy in curve
        ]

    return [_Unit(shape.name, shape.layer, shape.numel, partial(measure, shape)) for shape in network.layers]


def _groups(network: Network, images: ImageSet, method: FilterMethod, rates: Sequence[float]) -> list[_Unit]:
    """Return a unit for every group of coupled channels, in order from the image on.

    The channels of lowest score are zeroed, which has the effect of removing them; at least one stays.
    """
    groups = CoupledChannels.of(network.model, images.batch([0]).shape[1:]).among(
        [layer.name for layer in network.layers]
    )
    scores = method.scores(network, groups)

    def measure(place: int) -> list[SensitivityPoint]:
        total = groups.groups[place].units
        order = torch.argsort(scores[place], stable=True).tolist()
        points = []
        for rate in rates:
            count = min(round(rate * total), total - 1)
            with groups.silenced({place: order[:count]}):
                loss, accuracy = loss_and_accuracy(network, images)
            points.append(SensitivityPoint(rate=rate, sparsity=count / total, loss=loss, accuracy=accuracy))
        return points

    def weights(place: int) -> int:
        return groups.groups[place].units * (groups.parameters - groups.after_one(place)[0])

    return [
        _Unit(group.name, place, weights(place), partial(measure, place)) for place, group in enumerate(groups.groups)
    ]
