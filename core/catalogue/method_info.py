"""One entry of the catalogue of methods."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from core.catalogue.parameters import MethodParameters


class Paper(BaseModel):
    """Where a method comes from."""

    model_config = ConfigDict(frozen=True)

    title: str
    authors: str
    year: int
    url: str


class Needs(BaseModel):
    """What a method needs besides the weights."""

    model_config = ConfigDict(frozen=True)

    calibration: bool
    gradients: bool
    training: bool


class MethodInfo(BaseModel):
    """One entry of the catalogue. `patterns` lists pattern families, the default first; none: nothing is pruned."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    summary: str
    paper: Paper | None
    task_families: tuple[str, ...]
    patterns: tuple[str, ...]
    needs: Needs
    parameters: type[MethodParameters]

    @property
    def prunes(self) -> bool:
        """Whether it takes a pattern and a target."""
        return bool(self.patterns)

    @property
    def measures(self) -> bool:
        """Whether it leaves figures and no model."""
        return not self.prunes and not self.needs.training

    def public(self) -> dict[str, Any]:
        """The entry as GET /v1/methods shows it, with the JSON schema of its parameters."""
        entry = self.model_dump(exclude={"parameters"}, mode="json")
        return entry | {"parameters": self.parameters.model_json_schema()}
