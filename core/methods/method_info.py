"""Description of a method, as its folder gives it."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.engine.cuts.removal import Removal
from core.engine.options.base import MethodParameters
from core.engine.options.patterns import PatternFamily, family_of
from core.engine.removals.registry import REMOVALS
from core.methods.classifier_cost import ClassifierCost
from core.methods.cost import Cost
from core.methods.plan_offer import PlanOffer
from secateur_wire.methods import Needs, Paper

ZEROS = (
    "Zeros in any place make nothing faster on ordinary hardware, and the file stays as large. A packed "
    "artifact is smaller to store and send. Only kernels or processors made for sparse weights run it faster."
)
ZEROS_OR_N_M = (
    f"{ZEROS} With an n:m pattern, n of every m neighbouring weights stay. With 2:4, NVIDIA GPUs from Ampere on can do "
    "matrix products up to about twice as fast, if the runtime uses their sparse kernels."
)
SMALLER = (
    "The model itself gets smaller: it takes less memory, its file is smaller, and it runs faster on any "
    "hardware without special kernels. It loses more quality than zeros do at the same share, so train it "
    "afterwards (recovery)."
)
UNCHANGED = "None: the model keeps its size and speed."
"""Hardware gains to expect, by what a method does to a model."""


Read = Literal["none", "norms", "gram"]
"""Statistics of its inputs that a layer is pruned by, each with those before: none, norms of features, XᵀX."""


class Variant(BaseModel):
    """Properties of a method that may depend on the pattern family of a job.

    `description` is a paragraph for whoever has to choose, `gains` what hardware makes of the result. `removes` is the
    id of a removal, None where nothing is pruned.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    description: str
    gains: str
    needs: Needs
    parameters: type[MethodParameters] = Field(exclude=True)
    removes: str | None = Field(None, exclude=True)
    reads: Read = Field("none", exclude=True)
    cost: Cost[Any] = Field(default_factory=Cost, exclude=True)
    classifier_cost: ClassifierCost[Any] = Field(default_factory=ClassifierCost, exclude=True)

    @property
    def removal(self) -> Removal | None:
        """Return the kind of removal, None where nothing is pruned."""
        return None if self.removes is None else REMOVALS[self.removes]

    @property
    def shrinks(self) -> bool:
        """Return whether parts of the model go, so that it gets smaller; else weights become zero, or nothing does."""
        return self.removal is not None and not self.removal.zeroes

    @property
    def alone_measurable(self) -> bool:
        """Return whether it can prune one layer alone, at any rate: its weights without training, or its filters."""
        return self.removal is not None and self.removal.is_measurable_alone(trains=self.needs.training)

    def public(self) -> dict[str, object]:
        """Return the entry as GET /v1/methods shows it, with the JSON schema of its parameters."""
        return self.model_dump(mode="json") | {"parameters": self.parameters.model_json_schema()}


class MethodInfo(Variant):
    """Description of a method. `patterns` lists pattern families, the default first; none: nothing is pruned.

    It is itself the variant for its patterns, except for those of them that have one of their own in `variants`.
    `summary` is a line. Lists of methods go by `rank`, lowest first. `is_baseline`: it leaves what goes to chance, for
    others to be compared with. `offers` are jobs that the planner may propose.
    """

    id: str
    rank: int = Field(exclude=True)
    is_baseline: bool = Field(False, exclude=True)
    title: str
    summary: str
    paper: Paper | None
    task_families: tuple[str, ...]
    patterns: tuple[PatternFamily, ...]
    variants: Mapping[PatternFamily, Variant] = Field(default_factory=dict, exclude=True)
    offers: tuple[PlanOffer, ...] = Field((), exclude=True)

    @model_validator(mode="after")
    def _of_its_patterns(self) -> Self:
        others = self.patterns[1:]
        if not self.variants.keys() <= set(others):
            raise ValueError(
                f"variants are for patterns other than the first ({', '.join(others) or 'there are none'})"
            )
        return self

    @property
    def prunes(self) -> bool:
        """Return whether the method takes a pattern and a target."""
        return bool(self.patterns)

    @property
    def measures(self) -> bool:
        """Return whether the method reports figures and leaves no model."""
        return not self.prunes and not self.needs.training

    @property
    def shared_patterns(self) -> tuple[PatternFamily, ...]:
        """Return the pattern families that it is itself the variant for."""
        return tuple(each for each in self.patterns if each not in self.variants)

    def variant(self, pattern: str | None) -> Variant:
        """Return the variant for a pattern; for none, or one that the method does not offer, that of the default."""
        family = family_of(pattern)
        return self if family is None else self.variants.get(family, self)

    def public(self) -> dict[str, object]:
        return super().public() | {"variants": {each: variant.public() for each, variant in self.variants.items()}}
