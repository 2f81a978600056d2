"""Frontier for a smaller model: its parameters."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from core.engine.architectures.heterogeneous import Layout
from core.engine.options.width import WidthOptions
from core.methods.frontier.own_text import OWN_TEXT, Budget


class StructuredFrontierParameters(WidthOptions):
    """Parameters of `frontier` where heads and channels go."""

    cuts_behind_norms: ClassVar[bool] = True

    budget: Budget = Field(
        "quick",
        description="quick: at most about two and a half times SparseGPT's time; a quarter of the calibration "
        "sequences are of text that the model writes itself. thorough: at most about eight times; beside the "
        "calibration sequences three times as many, at most 96, are of such text.",
    )
    attention: Literal["kv_groups", "none"] = Field(
        "none",
        description="Heads stay (none), as their removal costs more than that of channels, or go as a KV head with "
        "its query heads (kv_groups).",
    )
    damping: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Of the least squares by which units are chosen, as a share of the mean of the inputs' squares.",
    )
    ridge: float = Field(
        0.1, gt=0, le=10, description="The same of the fit of what is left to what the dense model gave."
    )
    metric: bool = Field(
        True,
        description="Errors of an output count by what they do to the loss, from gradients of a few calibration "
        "sequences; else all alike.",
    )

    @model_validator(mode="after")
    def _fits_once(self) -> Self:
        if self.compensation is not None and self.compensation.refits:
            raise ValueError(
                "frontier fits what is left itself: leave out compensation, and set its ridge by parameters.ridge"
            )
        return self

    def ranks_layers(self, layout: Layout) -> bool:
        return layout == "per_layer"

    def split_calibration(self, samples: int | None) -> tuple[int | None, int]:
        return OWN_TEXT[self.budget].split(samples)
