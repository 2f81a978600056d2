"""Options for fitting the weights that stay to what the dense model gave."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_STEPS = 32
"""Most steps of conjugate gradients where their number is chosen."""
SWEEPS = 3
"""Most times that the experts of a block are fitted, each to what the others leave missing."""
ROUTER_STEPS = 4
"""Most steps along the gradient by which a block's router is fitted."""


class Refit(BaseModel):
    """Fitting weights to what the dense model gave."""

    is_after_a_cut: ClassVar[bool] = False
    """True where units or layers went before the fit; False where weights became zero and every shape stayed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    refit: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="α: a layer's weights go this far towards those that, fed with what the pruned layers before it "
        "give, come closest to the dense model's outputs. 0: they stay. auto: each layer's own, from calibration "
        "tokens held aside.",
    )
    ridge: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = Field(
        0.01,
        description="λ of the refit's least squares, as a share of the mean of the inputs' squares. auto: of 0.001, "
        "0.01, 0.1 and 1 what is best on tokens held aside, by input.",
    )
    held_aside: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.125, description="auto: share of the calibration tokens that nothing is fitted to."
    )

    @property
    def refits(self) -> bool:
        return self.refit != 0

    @property
    def conjugate_gradient_steps(self) -> int | Literal["auto"]:
        """Return the steps by which weights are fitted at a fixed mask: none where units went."""
        return 0

    @property
    def chooses(self) -> bool:
        """Return whether something is chosen by held-out tokens."""
        return self.refit == "auto" or (self.refits and self.ridge == "auto")


class Compensation(Refit):
    """Updates that make up for weights that become zero, beside what the method does itself."""

    conjugate_gradient: Literal["auto"] | Annotated[int, Field(ge=0, le=1000)] = Field(
        0,
        description="Steps by which the weights that stay are fitted once it is known which those are. auto: as many "
        "as tokens held aside gain from, at most 32.",
    )

    @property
    def conjugate_gradient_steps(self) -> int | Literal["auto"]:
        return self.conjugate_gradient

    @property
    def chooses(self) -> bool:
        return super().chooses or self.conjugate_gradient == "auto"


class CompensationOptions(BaseModel):
    """Options for compensation: an update of the weights that are kept for the loss of those that are pruned."""

    compensation: Compensation | None = Field(
        None,
        description="Language models: fit the weights to what the dense model gave (refit), and those that stay once "
        "more at a fixed mask (conjugate_gradient). Needs calibration, whatever the method.",
    )


class CutRefit(Refit):
    """Refit of what is left where heads, channels or layers went."""

    is_after_a_cut = True

    refit: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description=Refit.model_fields["refit"].description
    )
    ridge: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = Field(
        0.1, description=Refit.model_fields["ridge"].description
    )


_DEFAULT = CutRefit()


class RefitOptions(BaseModel):
    """Options for compensation: a refit of the layers that are kept for the heads, channels or layers removed."""

    compensation: CutRefit | None = Field(
        None,
        description="Fit the linear layers that are left to what the dense model gave, without training. Needs "
        'calibration, whatever the method. {"refit": 0}: none, as in the methods\' papers. Unset, with calibration: '
        f'{{"refit": {_DEFAULT.refit}, "ridge": {_DEFAULT.ridge}}}.',
    )

    @property
    def default_refit(self) -> CutRefit | None:
        """Refit that is done where nothing is said of it and there is calibration text; None: none."""
        return _DEFAULT
