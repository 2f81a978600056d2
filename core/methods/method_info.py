"""Description of a method, and of the jobs that it offers to the planner."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.engine.cuts import Removal
from core.engine.memory import Holds
from core.engine.options.axes import MethodParameters
from core.engine.options.patterns import UNSTRUCTURED, PatternFamily, family_of
from core.engine.removals.registry import REMOVALS
from secateur_wire.base import JsonObject
from secateur_wire.methods import Needs, Paper
from secateur_wire.plans import Goal

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
"""Expected hardware gains, by the effect of a method on a model."""


BOTH_TASKS = ("language-model", "image-classification")
CLASSIFIERS = ("image-classification",)

CALIBRATION = Needs(calibration=True, gradients=False, training=False)
GRADIENTS = Needs(calibration=True, gradients=True, training=False)
TRAINING = Needs(calibration=True, gradients=True, training=True)
"""Needs of methods; each includes those before."""

Read = Literal["none", "norms", "gram"]
"""Statistics of a layer's inputs that a method can need: none, norms of features, XᵀX. Each includes those before."""


def arxiv(number: str, title: str, authors: str) -> Paper:
    """Return the paper with a number on arXiv, which begins with the last two digits of its year."""
    return Paper(title=title, authors=authors, year=2000 + int(number[:2]), url=f"https://arxiv.org/abs/{number}")


@dataclass(frozen=True, kw_only=True)
class PlanOffer:
    """Job that a method offers for `goals` on models of a task; the planner tries offers in ascending order of `place`.

    `sequences` is the number of calibration sequences. With `needs_files` the job is offered only where added files can
    be written, whose bytes then count.
    """

    goals: tuple[Goal, ...]
    place: int
    reason: str
    task: str = "language-model"
    pattern: str = UNSTRUCTURED.text
    parameters: JsonObject = field(default_factory=dict)
    layout: str = "uniform"
    sequences: int = 32
    needs_files: bool = False


class Variant(BaseModel):
    """Properties of a method that can depend on the pattern family of a job.

    `description` is a paragraph for users who choose a method. `gains` says how hardware benefits from the result.
    `removes` is the id of a removal, None where nothing is pruned. `holds` are the weights in memory at once.

    Where they are left out, `removes` and `gains` follow from the patterns, and `needs` from what the method reads.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    description: str
    gains: str = ""
    needs: Needs = CALIBRATION
    parameters: type[MethodParameters] = Field(exclude=True)
    removes: str | None = Field(None, exclude=True)
    reads: Read = Field("none", exclude=True)
    holds: Holds = Field("block", exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _derived(cls, given: dict[str, Any]) -> dict[str, Any]:
        patterns = given.get("patterns", ())
        removes = given.get("removes", "weights" if UNSTRUCTURED.text in patterns else "widths" if patterns else None)
        gains = UNCHANGED if removes is None else SMALLER
        if removes == "weights":
            gains = ZEROS_OR_N_M if "n:m" in patterns else ZEROS
        needs = Needs(calibration=given.get("reads", "none") != "none", gradients=False, training=False)
        return {"gains": gains, "needs": needs, **given, "removes": removes}

    @property
    def removal(self) -> Removal | None:
        """Return the kind of removal, None where nothing is pruned."""
        return None if self.removes is None else REMOVALS[self.removes]

    @property
    def shrinks(self) -> bool:
        """Return whether the method removes parts of the model, so that it gets smaller."""
        return self.removal is not None and not self.removal.zeroes

    @property
    def alone_measurable(self) -> bool:
        """Return whether the method can prune one layer alone at any rate: filters, or weights without training."""
        return self.removes == "filters" or (self.removes == "weights" and not self.needs.training)

    def public(self) -> dict[str, object]:
        """Return the entry as GET /v1/methods shows it, with the JSON schema of its parameters."""
        return self.model_dump(mode="json") | {"parameters": self.parameters.model_json_schema()}


class MethodInfo(Variant):
    """Description of a method; `patterns` lists pattern families, the default first, and is empty if nothing is pruned.

    The method itself is the variant for its patterns, except for patterns with an entry in `variants`. `summary` is one
    line. `is_baseline` marks a method that chooses at random, for comparison with others. A method that `measures` only
    reports figures and produces no model. `offers` are jobs that the planner may propose.
    """

    id: str
    is_baseline: bool = Field(False, exclude=True)
    measures: bool = Field(False, exclude=True)
    title: str
    summary: str
    paper: Paper | None = None
    task_families: tuple[str, ...] = ("language-model",)
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
    def only_stores(self) -> bool:
        """Return whether the method changes no weight, so that a job only writes the model in other forms."""
        return not self.prunes and not self.measures and not self.needs.training

    @property
    def model_names(self) -> tuple[str, str]:
        """Return the names that texts give to the model before and after a job."""
        if self.prunes:
            return "dense", "pruned"
        return "given", "stored" if self.only_stores else "trained"

    @property
    def shared_patterns(self) -> tuple[PatternFamily, ...]:
        """Return the pattern families that have no variant of their own."""
        return tuple(each for each in self.patterns if each not in self.variants)

    def variant(self, pattern: str | None) -> Variant:
        """Return the variant for a pattern; the default pattern's where it is None or not offered."""
        family = family_of(pattern)
        return self if family is None else self.variants.get(family, self)

    def public(self) -> dict[str, object]:
        return super().public() | {"variants": {each: variant.public() for each, variant in self.variants.items()}}
