"""Filters: image classifiers lose convolution filters, with every channel coupled to them."""

from collections.abc import Sequence

from pydantic import Field

from core.engine.cuts import Cut, Removal, RemovalPlan
from core.engine.options.base import MethodParameters
from core.engine.removals.weights import prunable_linears, selection_of

_MOST = 0.9
"""Largest share of a classifier's parameters in a planned request. Only the engine computes the number of filters."""


class FilterParameters(MethodParameters):
    """Parameters of all methods that remove filters."""

    skip_modules: list[str] = Field(
        default_factory=list,
        description="Layers that keep all their filters: a module name such as 'convolution', or a pattern over full "
        "names. Layers coupled to them keep theirs too.",
    )
    round_to: int = Field(
        1, ge=1, le=4096, description="The number of filters, heads or channels that remain is a multiple of this."
    )
    measured_images: int = Field(
        256,
        ge=1,
        le=1_000_000,
        description="Calibration images on which scores and losses are measured, drawn anew in every round.",
    )
    retrain_learning_rate: float | None = Field(
        None, gt=0, le=1, description="Peak learning rate of AdamW in each round. Unset: 0.001."
    )
    retrain_batch_size: int = Field(64, ge=1, le=65_536, description="Images in a training step.")

    @property
    def layers_left_dense(self) -> Sequence[str]:
        return self.skip_modules


class FilterRemoval(Removal):
    """Removal of filters. The engine knows coupled filters and checks their number."""

    def check(self, cut: Cut) -> RemovalPlan:
        prunable_linears(cut.description, selection_of(cut.options))
        return RemovalPlan()

    def reachable(self, cut: Cut) -> Sequence[float]:
        return [0.0, _MOST]


FILTERS = FilterRemoval("filters", keeps_zeros=True, is_fine=True)
