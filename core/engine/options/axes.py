"""Parameters of every method as pydantic models: the axes that methods combine, and the base of all.

They give the JSON schema for clients, and the check of a job.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.engine.architectures.description import ModelDescription
from core.engine.options.patterns import Pattern
from secateur_wire.errors import InvalidParameters
from secateur_wire.job_body import VocabularyChoice
from secateur_wire.recovery import Recovery
from secateur_wire.requests import spelled

SensitivityJob = Annotated[
    str, spelled(r"^job:[A-Za-z0-9_-]{1,100}$", "job: and the id of a job with method sensitivity")
]
LayerSparsities = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1)]


class AllocationOptions(BaseModel):
    """Options for how the target sparsity is allocated to decoder layers."""

    allocation: Literal["uniform", "owl", "fisher"] | SensitivityJob | LayerSparsities = Field(
        "uniform",
        description="How the sparsity is spread over the layers. uniform: the same everywhere. owl: less in layers "
        "with more outlier activations (Yin 2023). fisher: in every linear layer, the next weight to remove costs "
        "the loss about the same, estimated from squared gradients (Fisher information) of a few calibration "
        "sequences. A list: one sparsity for each decoder layer. job:ID: such a list from the curves of a "
        "sensitivity job on a model with the same layers, which replaces it at submit.",
    )
    owl_outlier_ratio: float = Field(
        5.0, gt=0, description="owl: M. An activation is an outlier if it is above M times the mean."
    )
    owl_range: float = Field(0.08, ge=0, lt=1, description="owl: λ. A layer's sparsity stays within ±λ of the target.")
    fisher_sequences: int = Field(
        2, ge=1, le=4096, description="fisher: number of calibration sequences whose gradients are computed."
    )

    @property
    def is_listed(self) -> bool:
        return isinstance(self.allocation, list)

    @property
    def measured_allocation(self) -> str | None:
        """Return the allocation if it needs a pass over calibration text; None otherwise."""
        return str(self.allocation) if self.allocation in ("owl", "fisher") else None


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


Curvature = Literal["gauss_newton", "empirical_fisher", "squared_error"]


@dataclass(frozen=True)
class Retraining:
    """Rounds of a method: each prunes, then trains for a number of steps."""

    rounds: int = 1
    steps: int = 0
    batch_size: int = 0

    @property
    def images(self) -> int:
        return self.rounds * self.steps * self.batch_size


class IterationOptions(BaseModel):
    """Alternation of deletion and retraining."""

    rounds: int = Field(5, ge=1, le=10_000, description="Number of rounds. Each deletes weights and retrains the rest.")
    growth: Literal["linear", "cubic"] = Field(
        "linear",
        description="How the removed share grows over the rounds. The same number of weights in each round, or many at "
        "first and few at the end: 1 − (1 − r/rounds)³.",
    )
    retrain_steps: int = Field(
        500, ge=0, le=1_000_000, description="Optimiser steps after each deletion, while deleted weights stay zero."
    )
    learning_rate: float = Field(
        1e-4, gt=0, le=1, description="Learning rate of AdamW: a tenth of the usual one, as Han (2015) retrains LeNet."
    )
    batch_size: int = Field(128, ge=1, le=65_536, description="Images in a step.")


class CurvatureOptions(BaseModel):
    """Parameters of methods that use curvature: an estimate of the loss's second derivatives in the weights."""

    curvature: Curvature = Field(
        "gauss_newton",
        description="How the Hessian of the loss is estimated. gauss_newton: JᵀHJ, where J holds the derivatives of "
        "the logits by the weights, and H is the Hessian of the cross-entropy by the logits. empirical_fisher: the "
        "mean of the outer products of each image's own gradient. squared_error: JᵀJ, as if the loss were the "
        "squared change of the logits (LeCun 1989, Hassibi 1993).",
    )
    curvature_images: int | None = Field(
        1000,
        ge=1,
        le=1_000_000_000,
        description="Number of calibration images for the estimate, drawn by the seed, or all (null in JSON).",
    )


class ForwardOptions(BaseModel):
    """Option for the number format of the calibration forward."""

    forward_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of the calibration forward pass. auto: bfloat16 where the hardware multiplies it "
        "faster, else float32. Statistics and solves are always float32.",
    )


class PropagationOptions(ForwardOptions):
    """Options for how calibration tokens are propagated through the model."""

    propagation: Literal["in_flight", "two_pass"] = Field(
        "in_flight",
        description="in_flight: each block runs once, and each linear layer is pruned when the tokens reach it, so "
        "later layers of the block see the effect. two_pass: the block runs dense first, all its layers are pruned, "
        "then it runs again, as in the papers.",
    )
    micro_batch: int | None = Field(
        None, ge=1, le=4096, description="Sequences in one forward pass. Unset: chosen from the sequence length."
    )


Rates = Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=50)]
DEFAULT_RATES = tuple(tenths / 10 for tenths in range(1, 10))


class SensitivityOptions(BaseModel):
    """Options for the method, the rates and the layers of the measurement."""

    method: str = Field("magnitude", description="Id of the method that prunes the layers.")
    pattern: str | None = Field(
        None,
        description="Pattern of that method. Unset: its first. n:m leaves no choice of rates, so each layer has one "
        "point.",
    )
    rates: Rates | None = Field(
        None,
        description="Shares of a layer's weights, or filters, that are pruned, in rising order. Unset: 0.1, 0.2 … "
        "0.9, or with n:m the share that the pattern removes.",
    )
    scope: Literal["layer", "module"] = Field(
        "layer",
        description="layer: all linear layers of a decoder layer are pruned together, which gives one curve for each "
        "decoder layer. module: each linear layer alone. In classifiers a layer is a convolution or linear "
        "layer, or a group of coupled ones if the method removes filters.",
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="Parameters of the method that is measured.")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if any(after <= before for before, after in pairwise(self.rates or [])):
            raise ValueError("rates must be in rising order, such as [0.25, 0.5, 0.75]")
        return self

    def rates_of(self, pattern: Pattern) -> list[float]:
        """Return the rates to measure; raises InvalidParameters where n:m fixes a different rate."""
        if pattern.sparsity is None:
            return self.rates or list(DEFAULT_RATES)
        if self.rates not in (None, [pattern.sparsity]):
            raise InvalidParameters(
                f"parameters.rates: pattern {pattern.text!r} removes {pattern.sparsity:g} of every layer: leave rates "
                "out",
                param="parameters.rates",
            )
        return [pattern.sparsity]


class MethodParameters(BaseModel):
    """Parameters of all methods.

    An axis that only some methods have is a property here: its options, or None. Callers read the property; they never
    test for a class of options.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything random in the run.")

    @property
    def allocation_options(self) -> AllocationOptions | None:
        return self if isinstance(self, AllocationOptions) else None

    @property
    def propagation_options(self) -> PropagationOptions | None:
        return self if isinstance(self, PropagationOptions) else None

    @property
    def forward_options(self) -> ForwardOptions | None:
        return self if isinstance(self, ForwardOptions) else None

    @property
    def compensation_options(self) -> CompensationOptions | None:
        return self if isinstance(self, CompensationOptions) else None

    @property
    def sensitivity_options(self) -> SensitivityOptions | None:
        return self if isinstance(self, SensitivityOptions) else None

    @property
    def vocabulary_choice(self) -> VocabularyChoice | None:
        """Return which tokens stay, where the method removes tokens."""
        return self if isinstance(self, VocabularyChoice) else None

    @property
    def chooses_by_cost(self) -> bool:
        """Return True if the method knows what each unit and layer is worth, so that a limit of cost can choose."""
        return False

    @property
    def retraining(self) -> Retraining:
        """Return the method's rounds and the training in each; one round without training by default."""
        if isinstance(self, IterationOptions):
            return Retraining(self.rounds, self.retrain_steps, self.batch_size)
        return Retraining()

    @property
    def layers_left_dense(self) -> Sequence[str]:
        """Return the names, or globs over full names, of the layers that lose nothing."""
        return ()

    @property
    def ranks_entire_model(self) -> bool:
        """Return True if the weights of all layers are ranked together."""
        return False

    @property
    def differentiates_images(self) -> bool:
        """Return True if gradients of single images are required; language models have none."""
        return False

    @property
    def requested_compensation(self) -> Refit | None:
        """Return the compensation that the parameters request; None where they request none."""
        if isinstance(self, RefitOptions):
            return self.compensation if self.compensation and self.compensation.refits else None
        return None if self.compensation_options is None else self.compensation_options.compensation

    def with_refit(self) -> Self:
        """Return the parameters with the default refit where they leave it open, if the method has one."""
        if not isinstance(self, RefitOptions) or self.compensation:
            return self
        return self.model_copy(update={"compensation": self.default_refit})

    def forwards(self, description: ModelDescription, share: float, calibration: int, window: int) -> int:
        """Return the tokens that pass through the model by forward to choose the `share` that goes.

        There are so many `calibration` tokens, in sequences of `window` tokens.
        """
        propagation, allocation = self.propagation_options, self.allocation_options
        is_two_pass = propagation is not None and propagation.propagation == "two_pass"
        is_owl = allocation is not None and allocation.measured_allocation == "owl"
        return (2 if is_two_pass or is_owl else 1) * calibration

    def products(self, inputs: int, share: float) -> float:
        """Return how often a solver multiplies each weight by a column of a matrix like XᵀX, inputs × inputs."""
        return 1

    def training(self, sequence_length: int) -> Recovery | None:
        """Return the training that is part of the choice, on sequences of so many tokens; None without training."""
        return None

    def split_calibration(self, samples: int | None) -> tuple[int | None, int] | None:
        """Return the numbers of calibration sequences from the text and generated by the model; None: no preference.

        `samples` is the number of text sequences that a job uses (None: all) where the parameters do not say how many
        sequences to generate.
        """
        return None


class BudgetOptions(BaseModel):
    """Option for the amount of work of a method."""

    budget: Literal["quick", "standard"] = Field(
        "standard", description="standard: as in the paper. quick: what a CPU does in minutes."
    )
