"""Options of methods that remove heads and channels."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from core.engine.architectures.description import ModelDescription
from core.engine.architectures.units import AttentionChoice
from core.engine.options.axes import MethodParameters, RefitOptions
from secateur_wire.job_body import Layout


class WidthOptions(MethodParameters, RefitOptions):
    """Options for removable groups, and the multiples to which their counts are rounded.

    `paper_protects` are the numbers of first and last layers, out of 32, that the method's paper does not prune.
    `cuts_behind_norms`: heads are removed after the norm over all heads has run, so no norm may span them.
    `cuts_experts`: in a mixture, the channels of its experts are removed.
    """

    paper_protects: ClassVar[tuple[int, int]] = (0, 0)
    cuts_behind_norms: ClassVar[bool] = False
    cuts_experts: ClassVar[bool] = False

    attention: Annotated[AttentionChoice, BeforeValidator(lambda given: given or "auto")] = Field(
        "auto",
        description="How attention heads are removed. kv_groups: a key/value (KV) head together with the query heads "
        "that share it. query_heads: the same number of query heads from every KV head's group. With both, heads and "
        "channels lose the same share. none: no heads. auto: only channels, as long as a quarter of a layer's "
        "stays, and then as few heads as possible.",
    )
    round_to: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="The number of channels that remain is a multiple of this. Unset: what output.exports stores in "
        "blocks (32 or 256 for quantised GGUF), else 8 on a CPU and 64 on CUDA.",
    )
    protected_first: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="Number of first layers that lose nothing, so that the others lose more; needs output.layout "
        "'per_layer'. Unset: as in the method's paper (LLM-Pruner and its baselines: 4 of 32, scaled with "
        "the depth).",
    )
    protected_last: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="Number of last layers that lose nothing. Unset: as in the method's paper (LLM-Pruner and its "
        "baselines: 2 of 32, scaled with the depth).",
    )

    def protected(self, layers: int) -> frozenset[int]:
        """Return the layers that lose nothing where layers may differ in shape; `layers` is their number."""
        requested = (self.protected_first, self.protected_last)
        first, last = (
            round(share * layers / 32) if own is None else own
            for own, share in zip(requested, self.paper_protects, strict=True)
        )
        return frozenset(layer for layer in range(layers) if layer < first or layer >= layers - last)

    def ranks_layers(self, layout: Layout) -> bool:
        """Return True if the groups of all layers are ranked together in a model of that layout."""
        return False

    @property
    def leaves_biases(self) -> bool:
        """Return True if biases replace the removed units, where the architecture has biases."""
        return False

    def check_dropped_layers(self, description: ModelDescription, ratio: float, free: int) -> None:
        """Raise InvalidParameters where the whole layers to drop, out of `free` ones, exceed `ratio` of the model."""


class RankedWidthOptions(WidthOptions):
    """Parameters of methods that score every group: the scope within which scores are compared."""

    cuts_experts: ClassVar[bool] = True

    scope: Literal["layer", "model"] = Field(
        "layer",
        description="layer: every layer that is not protected loses the same share. model: the heads and channels of "
        "all layers are ranked together, by importance per parameter, divided by the root mean square of their "
        "layer's; needs output.layout 'per_layer'.",
    )

    def ranks_layers(self, layout: Layout) -> bool:
        return self.scope == "model"
