"""Layers: a language model loses whole decoder layers; some models need at least one layer of some kinds."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import ROUNDING, LayerCounts
from core.engine.cuts import Cut, Losses, Removal, RemovalPlan
from core.engine.options.axes import MethodParameters
from secateur_wire.errors import InvalidSparsity


class LayerOptions(MethodParameters):
    """Options of methods that remove whole layers."""

    def check_removed_layers(self, description: ModelDescription, count: int) -> None:
        """Require that `count` whole layers can be removed; raises InvalidSparsity or InvalidParameters."""
        check_layer_count(description, count)


@dataclass(frozen=True)
class LayerPlan(RemovalPlan):
    """Plan that removes `removed` whole layers."""

    removed: int = 0

    def remaining_counts(self, description: ModelDescription) -> dict[int, LayerCounts]:
        layers = require_structure(description).layers
        removed = first_removable_layers(description, range(len(layers))[::-1], self.removed)
        return {
            layer: LayerCounts.of_all(shape, self.kinds) for layer, shape in enumerate(layers) if layer not in removed
        }


class LayerRemoval(Removal):
    """Removal of whole decoder layers."""

    def check(self, cut: Cut) -> LayerPlan:
        description = cut.language_model
        structure = require_structure(description)
        count = layer_count(structure, parameters=description.parameters, ratio=cut.sparsity, at_least=cut.at_least)
        assert isinstance(cut.options, LayerOptions)
        cut.options.check_removed_layers(description, count)
        return LayerPlan(removed=count)

    def reachable(self, cut: Cut) -> Sequence[float]:
        structure = require_structure(cut.language_model)
        layers = len(structure.layers)
        return [count * structure.parameters / layers / cut.description.parameters for count in range(layers)]

    def losses(self, cut: Cut) -> Losses:
        return Losses(layers=True, different_layers=cut.layout == "per_layer")


LAYERS = LayerRemoval("layers", offer="layers")


def layer_count(structure: ModelStructure, *, parameters: int, ratio: float, at_least: bool = False) -> int:
    """Return the number of whole layers whose share of parameters is nearest to `ratio`, or, with `at_least`, no less.

    Raises InvalidSparsity where none, or all, would be removed.
    """
    layers = len(structure.layers)
    each = structure.parameters / layers
    wanted = ratio * parameters
    count = math.ceil((wanted - ROUNDING) / each) if at_least else round(wanted / each)
    if ratio > 0 and not 0 < count < layers:
        least, most = each / parameters, (layers - 1) * each / parameters
        raise InvalidSparsity(
            f"sparsity {ratio:g}: each layer has {least:.4f} of the model's parameters, so from {least:.4f} up to "
            f"{most:.4f} can be removed",
            param="sparsity",
        )
    return count


def can_run_with(description: ModelDescription, left: Collection[int]) -> bool:
    """Return True if a model can run with these layers alone: at least one, and one of each required kind."""
    return bool(left) and all(not layers_with.isdisjoint(left) for layers_with in required_layers(description))


def removable_layers(description: ModelDescription, removed: Collection[int] = ()) -> list[int]:
    """Return the layers that can be removed, one at a time, in addition to those already removed."""
    left = [layer for layer in range(description.layers) if layer not in removed]
    return [layer for layer in left if can_run_with(description, [each for each in left if each != layer])]


def first_removable_layers(description: ModelDescription, ordered: Sequence[int], count: int) -> list[int]:
    """Return `count` layers to remove: in the given order as long as the model still runs, then any others."""
    removed: list[int] = []
    for layer in [*ordered, *range(description.layers)]:
        if len(removed) < count and layer in removable_layers(description, removed):
            removed.append(layer)
    return removed


def removable_runs(description: ModelDescription, count: int) -> list[int]:
    """Return the first layers of the contiguous runs of `count` layers that can be removed."""
    layers = range(description.layers)
    return [
        start
        for start in range(description.layers - count + 1)
        if can_run_with(description, [*layers[:start], *layers[start + count :]])
    ]


def most_removable_layers(description: ModelDescription) -> int:
    """Return the largest number of layers that can be removed, over all choices that keep the required kinds."""
    return description.layers - max(1, len(required_layers(description)))


def check_layer_count(description: ModelDescription, count: int) -> None:
    """Require that `count` layers can be removed; raises InvalidSparsity naming the largest number."""
    most = most_removable_layers(description)
    if count > most:
        kinds = ", ".join(description.known_as.required)
        raise InvalidSparsity(
            f"sparsity: this removes {count} of {description.layers} layers, but {description.architecture} needs a "
            f"layer with {kinds} to run: at most {most} can go, which is "
            f"{most * _layer_share(description):.4f} of the model's parameters",
            param="sparsity",
        )


def _layer_share(description: ModelDescription) -> float:
    """Return the share of the model's parameters in an average layer."""
    parameters = 0 if description.structure is None else description.structure.parameters
    return parameters / description.layers / description.parameters


def required_layers(description: ModelDescription) -> list[frozenset[int]]:
    """Return the layers with each required linear layer, one set for each that the model has."""
    family = description.known_as
    layers_with = [
        frozenset(each.layer for each in description.linears if each.name == f"{family.blocks}.{each.layer}.{output}")
        for output in family.required
    ]
    return [each for each in layers_with if each]
