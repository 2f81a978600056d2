"""Parameters of every method as pydantic models: the JSON schema a client sees and the check a job goes through."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import CompensationOptions, Refit, RefitOptions
from core.engine.options.iteration import IterationOptions, Retraining
from core.engine.options.propagation import PropagationOptions
from core.engine.options.sensitivity import SensitivityOptions


class MethodParameters(BaseModel):
    """Parameters of all methods.

    An axis that a method may have or not is a property here: its options, or None where the method has none. Callers
    read the property, so that no class of options is asked for elsewhere.
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
    def compensation_options(self) -> CompensationOptions | None:
        return self if isinstance(self, CompensationOptions) else None

    @property
    def sensitivity_options(self) -> SensitivityOptions | None:
        return self if isinstance(self, SensitivityOptions) else None

    @property
    def retraining(self) -> Retraining:
        """Return the rounds of the method and the training of each: one round without any, if it has none."""
        if isinstance(self, IterationOptions):
            return Retraining(self.rounds, self.retrain_steps, self.batch_size)
        return Retraining()

    @property
    def layers_left_dense(self) -> Sequence[str]:
        """Return the names of layers that nothing is taken from, or globs over full names."""
        return ()

    @property
    def ranks_entire_model(self) -> bool:
        """Return whether the weights of all layers are ranked together."""
        return False

    @property
    def differentiates_images(self) -> bool:
        """Return whether derivatives of single images are required, which language models have none of."""
        return False

    @property
    def requested_compensation(self) -> Refit | None:
        """Return the compensation that the parameters request, None where they request none."""
        if isinstance(self, RefitOptions):
            return self.compensation if self.compensation and self.compensation.refits else None
        return None if self.compensation_options is None else self.compensation_options.compensation

    def with_refit(self) -> Self:
        """Return the parameters with the refit filled in that they leave open, where the method has one."""
        if not isinstance(self, RefitOptions) or self.compensation:
            return self
        return self.model_copy(update={"compensation": self.default_refit})

    def split_calibration(self, samples: int | None) -> tuple[int | None, int] | None:
        """Return how many calibration sequences are of the text and how many the model generates; None: no wish.

        `samples` is the number of sequences of a text that a job uses (None: all of it), where it does not say how many
        to generate.
        """
        return None


class BudgetOptions(BaseModel):
    """Option for how much work a method does."""

    budget: Literal["quick", "standard"] = Field(
        "standard", description="standard: as in the paper. quick: what a CPU does in minutes."
    )
