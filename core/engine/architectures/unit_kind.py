"""Interface of a kind of unit that can be removed from a decoder block, read from the config and headers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_axis import UnitAxis
from core.engine.checkpoints.safetensors_header import TensorEntry
from secateur_wire.errors import UnusableModel

KindName: TypeAlias = str
AttentionMode = Literal["kv_groups", "query_heads", "none"]
"""Unit by which a job removes attention heads."""
AttentionChoice = Literal["auto", "kv_groups", "query_heads", "none"]
"""Unit by which a request removes heads; with auto, a comparison of costs splits the removal with the FFN."""
Block: TypeAlias = Mapping[str, TensorEntry]
"""Tensors of a block, by their names within it."""


class KindFacts(NamedTuple):
    """Facts of a kind of unit in a model: the facts of all layers, and the sizes of each layer."""

    of_model: dict[str, bool | int]
    sizes: list[dict[str, int]]


class UnitKind(ABC):
    """Kind of unit within decoder blocks.

    `name` is its name in scores, counts and reports, `rank` its place among the kinds of a layer. Units with `is_fine`
    are so small that they go in aligned steps and make up the difference that units of other kinds leave.
    """

    name: ClassVar[KindName]
    rank: ClassVar[int]
    is_fine: ClassVar[bool] = False

    @abstractmethod
    def is_removed(self, attention: AttentionMode) -> bool:
        """Return True if a job with that attention mode removes units of this kind."""

    @abstractmethod
    def read(self, family: Architecture, blocks: Sequence[Block], configs: Sequence[Mapping[str, Any]]) -> KindFacts:
        """Return the facts of a model from each layer's tensors and config; raises UnusableModel."""

    @abstractmethod
    def settings(self, family: Architecture) -> Mapping[str, str]:
        """Return the config's name for each size that these units determine."""

    def values(self, family: Architecture, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the settings of a layer with these sizes, by their names in the family's config."""
        return {key: sizes[size] for size, key in self.settings(family).items()}

    @abstractmethod
    def units(self, shape: LayerShape) -> int:
        """Return the number of units in a layer, in each of its sets."""

    @abstractmethod
    def parameters(self, structure: ModelStructure, layer: int) -> int:
        """Return the parameters of one unit of a layer, summed over the layer's sets."""

    @abstractmethod
    def runs(self, structure: ModelStructure, layer: int) -> Mapping[str, tuple[int, int]]:
        """Return, for each run of an axis, the features of one unit, and the features that no unit owns."""

    @abstractmethod
    def sizes(self, shape: LayerShape, units: int) -> dict[str, int]:
        """Return the sizes of a layer of that shape when it keeps this many units."""

    def parts(self, shape: LayerShape) -> int:
        """Return the number of equal groups of a layer's units that must each keep the same number."""
        return 1

    def sets(self, shape: LayerShape) -> int:
        """Return the number of sets of units in a layer that each keep the same number: one set for each expert."""
        return 1

    def all_parameters(self, structure: ModelStructure, layer: int) -> int:
        """Return the parameters of all units of a layer."""
        return self.units(structure.layers[layer]) * self.parameters(structure, layer)

    def accepts(self, structure: ModelStructure, sizes: Mapping[str, int], hidden_size: int) -> bool:
        """Return True if a config of that hidden size accepts layers of these sizes."""
        return True

    def fixed_settings(self, family: Architecture, structure: ModelStructure) -> dict[str, int]:
        """Return the settings that a config needs once such units may have been removed."""
        return {}


def axis_tensors(axis: UnitAxis) -> tuple[str, ...]:
    """Return the tensors of an axis, by their names within the block: weights, and biases of outputs."""
    if axis.side == "in":
        return (f"{axis.module}.weight",)
    return (f"{axis.module}.weight", f"{axis.module}.bias", axis.module)


def run_name(run: str) -> tuple[str, int]:
    """Return the name of a run's features, and the factor of their number per unit."""
    name, _, factor = run.partition(":")
    return name, int(factor or 1)


def axis_dimension(family: Architecture, axis: UnitAxis, dimensions: int) -> int:
    """Return the dimension of an axis in its tensor, which has that many `dimensions`."""
    if dimensions == 1:
        return 0
    return int((axis.side == "in") != family.transposed)


def features(family: Architecture, block: Block, axis: UnitAxis) -> int:
    """Return the size of a block's tensor along an axis; raises UnusableModel where it is no vector or matrix."""
    return _size(family, axis, block[f"{axis.module}.weight"])


def axis_parameters(family: Architecture, block: Block, axes: Sequence[UnitAxis], rows: Mapping[str, int]) -> int:
    """Return the parameters of one unit, summed over all its axes; `rows` are its features in each run."""
    return sum(
        block[name].numel
        // _size(family, axis, block[name])
        * sum(rows.get(name, 0) * factor for name, factor in map(run_name, axis.runs))
        for axis in axes
        for name in axis_tensors(axis)
        if name in block
    )


def _size(family: Architecture, axis: UnitAxis, entry: TensorEntry) -> int:
    size = entry.shape[axis_dimension(family, axis, len(entry.shape))] if len(entry.shape) in (1, 2) else 0
    if size == 0:
        raise UnusableModel(
            f"{entry.name} has shape {list(entry.shape)}, one or two dimensions are needed", param="model"
        )
    return size
