"""Options of methods that remove whole layers."""

from core.engine.architectures.description import ModelDescription
from core.engine.options.axes import MethodParameters
from core.engine.removals.layers.counts import check_layer_count


class LayerOptions(MethodParameters):
    """Options of methods that remove whole layers."""

    def check_removed_layers(self, description: ModelDescription, count: int) -> None:
        """Require that `count` whole layers can be removed; raises InvalidSparsity or InvalidParameters."""
        check_layer_count(description, count)
