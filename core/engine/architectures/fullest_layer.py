"""The layer that shapes are counted by where layers have units of unlike kinds, and all lose alike."""

from collections.abc import Sequence

from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_kind import UnitKind


def fullest_layer(structure: ModelStructure, kinds: Sequence[UnitKind]) -> tuple[ModelStructure, int]:
    """Return the first layer that has units of all kinds that any has, with the structure it is of.

    Where there is none, as where attention and experts are layers of their own, it is one more that has what all have.
    """
    having = [{kind.name for kind in kinds if kind.units(shape)} for shape in structure.layers]
    every = set[str]().union(*having)
    if every in having:
        return structure, having.index(every)
    sizes = {name: max(shape.sizes[name] for shape in structure.layers) for name in structure.layers[0].sizes}
    joined = LayerShape.model_validate({"parameters": max(shape.parameters for shape in structure.layers), **sizes})
    return structure.model_copy(update={"layers": [*structure.layers, joined]}), len(structure.layers)
