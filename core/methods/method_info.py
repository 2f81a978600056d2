"""One entry of the catalogue of methods."""

from pydantic import BaseModel, ConfigDict

from core.engine.options.base import MethodParameters
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


class MethodInfo(BaseModel):
    """One entry of the catalogue. `patterns` lists pattern families, the default first; none: nothing is pruned.

    `summary` is a line, `description` a paragraph for whoever has to choose, `gains` what hardware makes of the result.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    summary: str
    description: str
    gains: str
    paper: Paper | None
    task_families: tuple[str, ...]
    patterns: tuple[str, ...]
    needs: Needs
    parameters: type[MethodParameters]

    @property
    def prunes(self) -> bool:
        """Return whether the method takes a pattern and a target."""
        return bool(self.patterns)

    @property
    def measures(self) -> bool:
        """Return whether the method reports figures and leaves no model."""
        return not self.prunes and not self.needs.training

    def public(self) -> dict[str, object]:
        """Return the entry as GET /v1/methods shows it, with the JSON schema of its parameters."""
        entry = self.model_dump(exclude={"parameters"}, mode="json")
        return entry | {"parameters": self.parameters.model_json_schema()}
