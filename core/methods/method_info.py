"""Description of a method, as its folder gives it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.engine.options.base import MethodParameters
from core.methods.cost import Cost
from secateur_wire.methods import Needs, Paper

ZEROS = (
    "Zeros anywhere speed nothing up and leave the file as large on ordinary hardware; a packed artifact stores and "
    "transfers smaller, and only kernels or processors made for sparse weights run faster."
)
ZEROS_OR_N_M = (
    f"{ZEROS} With n:m, 2:4 above all, NVIDIA GPUs from Ampere on can do matrix products up to about twice as fast, "
    "where the runtime uses their sparse kernels."
)
SMALLER = (
    "The model itself gets smaller: less memory, a smaller file and faster runs on any hardware, without special "
    "kernels. It loses more quality than zeros do at the same share, so recovery afterwards is advised."
)
UNCHANGED = "None: the model keeps its size and speed."
"""Hardware gains to expect, by what a method does to a model."""


Removed = Literal["weights", "heads_and_channels", "layers", "filters"]
"""Parts that a method takes out of a model; weights become zero, all else is gone."""
Read = Literal["none", "norms", "gram"]
"""Statistics of its inputs that a layer is pruned by, each with those before: none, norms of features, XᵀX."""


class MethodInfo(BaseModel):
    """Description of a method. `patterns` lists pattern families, the default first; none: nothing is pruned.

    `summary` is a line, `description` a paragraph for whoever has to choose, `gains` what hardware makes of the result.
    Lists of methods go by `rank`, lowest first. `removes` is None where nothing is pruned.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    id: str
    rank: int = Field(exclude=True)
    title: str
    summary: str
    description: str
    gains: str
    paper: Paper | None
    task_families: tuple[str, ...]
    patterns: tuple[str, ...]
    needs: Needs
    parameters: type[MethodParameters] = Field(exclude=True)
    removes: Removed | None = Field(None, exclude=True)
    reads: Read = Field("none", exclude=True)
    cost: Cost[Any] = Field(default_factory=Cost, exclude=True)

    @property
    def prunes(self) -> bool:
        """Return whether the method takes a pattern and a target."""
        return bool(self.patterns)

    @property
    def measures(self) -> bool:
        """Return whether the method reports figures and leaves no model."""
        return not self.prunes and not self.needs.training

    @property
    def alone_measurable(self) -> bool:
        """Return whether it can prune one layer alone, at any rate: its weights without training, or its filters."""
        return self.removes == "filters" or (self.removes == "weights" and not self.needs.training)

    def public(self) -> dict[str, object]:
        """Return the entry as GET /v1/methods shows it, with the JSON schema of its parameters."""
        return self.model_dump(mode="json") | {"parameters": self.parameters.model_json_schema()}
