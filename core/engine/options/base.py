"""Parameters of every method as pydantic models: the JSON schema a client sees and the check a job goes through."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.engine.architectures.description import ModelDescription
from core.engine.options.layer_removal import check_layer_count


class MethodParameters(BaseModel):
    """Parameters of all methods."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything random in the run.")

    def check_removed_layers(self, description: ModelDescription, count: int) -> None:
        """Require that as many whole layers of a model may go; raises InvalidSparsity or InvalidParameters."""
        check_layer_count(description, count)

    def split_calibration(self, samples: int | None) -> tuple[int | None, int] | None:
        """Return how many calibration sequences are of the text and how many the model generates; None: no wish.

        `samples` is the number of sequences of a text that a job uses (None: all of it), where it does not say how many
        to generate.
        """
        return None


class BudgetOptions(BaseModel):
    """Option for how much work a method does."""

    budget: Literal["quick", "standard"] = Field(
        "standard", description="standard: the paper's; quick: what a CPU does in minutes."
    )
