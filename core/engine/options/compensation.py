"""Options for fitting the weights that stay to the outputs of the dense model."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

SWEEPS = 3
"""Most times that the experts of a block are fitted, each to the residual that the others leave."""
ROUTER_STEPS = 4
"""Most gradient steps with which a block's router is fitted."""


class Refit(BaseModel):
    """Fit of weights to the outputs of the dense model."""

    is_after_removal: ClassVar[bool] = False
    """True for a fit after units or layers were removed; False after weights became zero and every shape stayed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    refit: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="α, 0 to 1: how far a layer's weights move towards a refit. A refit is the weights with which the "
        "layer, given its inputs in the pruned model, comes closest to the outputs it had before pruning "
        "(least squares). 0: no refit. auto: chosen for each layer, on calibration tokens that are not used "
        "for the fit.",
    )
    ridge: Annotated[float, Field(gt=0, le=10)] = Field(
        0.01,
        description="λ: strength of the penalty that keeps the refit's least squares stable (ridge regression), as a "
        "share of the mean of the squared inputs.",
    )
    held_aside: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.125,
        description="For refit auto: the share of the calibration tokens that is not used for the fit, and decides "
        "how far weights move.",
    )

    @property
    def refits(self) -> bool:
        return self.refit != 0

    @property
    def conjugate_gradient_steps(self) -> int:
        """Return the number of conjugate-gradient steps at a fixed mask; 0 where units were removed."""
        return 0

    @property
    def chooses(self) -> bool:
        """Return True if held-out tokens choose α."""
        return self.refit == "auto"


class Compensation(Refit):
    """Updates that compensate for pruned weights, beside the method's own."""

    conjugate_gradient: Annotated[int, Field(ge=0, le=1000)] = Field(
        0,
        description="Steps of conjugate gradients that fit the remaining weights once the choice of weights is final.",
    )

    @property
    def conjugate_gradient_steps(self) -> int:
        return self.conjugate_gradient


class CompensationOptions(BaseModel):
    """Options for compensation: an update of the kept weights for the loss of the pruned ones."""

    compensation: Compensation | None = Field(
        None,
        description="Language models: change the remaining weights so that each layer's outputs come close to those of "
        "the model before pruning. `refit` does it before weights are chosen, `conjugate_gradient` "
        "afterwards. Needs calibration text with every method.",
    )


class CutRefit(Refit):
    """Refit of the linear layers that remain after heads, channels or layers were removed."""

    is_after_removal = True

    refit: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description=Refit.model_fields["refit"].description
    )
    ridge: Annotated[float, Field(gt=0, le=10)] = Field(0.1, description=Refit.model_fields["ridge"].description)


_DEFAULT = CutRefit()


class RefitOptions(BaseModel):
    """Options for compensation: a refit of the remaining layers after heads, channels or layers were removed."""

    compensation: CutRefit | None = Field(
        None,
        description="Refit: fit the remaining linear layers to the outputs of the model before pruning, without "
        'training. Needs calibration text with every method. {"refit": 0}: no refit, as in the papers. Unset, with '
        "calibration: "
        f'{{"refit": {_DEFAULT.refit}, "ridge": {_DEFAULT.ridge}}}.',
    )

    @property
    def default_refit(self) -> CutRefit | None:
        """Refit that is the default where there is calibration text; None: no refit."""
        return _DEFAULT
