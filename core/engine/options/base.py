"""Parameters of every method as pydantic models: the JSON schema for clients, and the check of a job."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from core.engine.architectures.description import ModelDescription
from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import CompensationOptions, Refit, RefitOptions
from core.engine.options.iteration import IterationOptions, Retraining
from core.engine.options.propagation import ForwardOptions, PropagationOptions
from core.engine.options.sensitivity import SensitivityOptions
from secateur_wire.job_body import VocabularyChoice
from secateur_wire.recovery import Recovery


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
