"""Options for measuring how sensitive each layer is to pruning."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from core.engine.options.patterns import Pattern
from secateur_wire.errors import InvalidParameters

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
