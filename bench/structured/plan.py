"""Plan of the structured bench: its rows, its columns, and which cells in which order. Loads no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.architectures.heterogeneous import Layout
from core.engine.options.patterns import STRUCTURED
from core.methods.registry import get_method
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from secateur_wire.errors import InvalidRequest

SAMPLES, LENGTH = 64, 512
"""Calibration sequences where a method's paper does not say otherwise, and tokens of each."""
MANY = 128
"""Calibration sequences of `frontier` and of FLAP at its best: what they fit gains by more of them."""
FRONTIER, FLAP = "frontier", "flap"
"""Methods that are run with every seed, and compared."""
_DISTILLED = ", distilled"
"""Mark in the title of a row that is trained after it was pruned as the row whose title ends before it."""


@dataclass(frozen=True)
class Row:
    """A method with its parameters.

    `samples` × `length` tokens calibrate, none with 0 samples. `distils`: what was pruned is trained afterwards, on the
    dense model's predictions and, with a `label_weight`, on what the text says. A `slow` row is run after all that are
    not.
    """

    title: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout = "uniform"
    samples: int = SAMPLES
    length: int = LENGTH
    distils: bool = False
    label_weight: float = 0.0
    slow: bool = False

    @property
    def untrained(self) -> str:
        """Return the title of the row that prunes the same and leaves it at that."""
        return self.title.partition(_DISTILLED)[0]

    @property
    def has_seeds(self) -> bool:
        """Return whether it is run with every seed, not the first alone."""
        return self.method in (FRONTIER, FLAP)

    def body(self) -> dict[str, Any]:
        """Return the row as a job would have it, but for sparsity and texts."""
        return {"method": self.method, "pattern": STRUCTURED.text, "output": {"layout": self.layout}} | (
            {"parameters": dict(self.parameters)} if self.parameters else {}
        )

    def request(self, description: ModelDescription, sparsity: float) -> ResolvedRequest:
        """The request, checked against the model; raises InvalidRequest where there is no such job."""
        removes_layers = get_method(self.method).variant(STRUCTURED.text).removes == "layers"
        return resolve_request(
            description,
            UnresolvedRequest(
                self.method,
                STRUCTURED.text,
                sparsity,
                self.parameters,
                layout=None if removes_layers else self.layout,
                is_calibrated=self.samples > 0,
            ),
        )


def _frontier(layout: Layout, budget: str, **how: Any) -> Row:
    labels = " with labels" if how.get("label_weight") else ""
    title = f"{FRONTIER} {layout} {budget}{_DISTILLED + labels if how.get('distils') else ''}"
    return Row(title, FRONTIER, {"budget": budget}, layout, MANY, **how)


_NO_REFIT = {"compensation": {"refit": 0}}
_QUICK = {"budget": "quick"}
ROWS = {
    each.title: each
    for each in (
        _frontier("uniform", "quick"),
        _frontier("per_layer", "quick"),
        _frontier("uniform", "quick", distils=True),
        _frontier("per_layer", "quick", distils=True),
        _frontier("uniform", "quick", distils=True, label_weight=0.5),
        _frontier("per_layer", "quick", distils=True, label_weight=0.5),
        Row("flap best", FLAP, {"attention": "none", "bias": False}, "per_layer", MANY),
        Row("flap paper", FLAP, {"attention": "kv_groups", "bias": True} | _NO_REFIT, "per_layer", 1024, 128),
        Row("shortgpt + refit", "depth", {"criterion": "block_influence", "compensation": {"refit": 0.5}}),
        Row("llm-pruner", "llm-pruner"),
        Row("llm-pruner paper", "llm-pruner", {"attention": "kv_groups"} | _NO_REFIT, "per_layer", 10, 128),
        Row("l2-structured", "l2-structured", samples=0),
        Row("random-structured", "random-structured", samples=0),
        Row("depth", "depth", _QUICK, slow=True),
        _frontier("uniform", "thorough", slow=True),
        _frontier("per_layer", "thorough", slow=True),
        Row("bonsai", "bonsai", _QUICK, slow=True),
        Row("loraprune", "loraprune", _QUICK, slow=True),
        Row("lorashear", "lorashear", _QUICK, slow=True),
    )
}


@dataclass(frozen=True)
class Target:
    """A table: the share of the parameters that goes, of the blocks or of the model."""

    share: float
    of_model: bool = False

    @property
    def title(self) -> str:
        return f"{100 * self.share:g} % of the {'model' if self.of_model else 'blocks'}"

    def sparsity(self, description: ModelDescription) -> float:
        """The share of the model's parameters, which is what a job asks for."""
        return self.share if self.of_model else self.share * blocks_share(description)

    def of_blocks(self, description: ModelDescription) -> float:
        """The share of the blocks' parameters."""
        return self.share / blocks_share(description) if self.of_model else self.share


def blocks_share(description: ModelDescription) -> float:
    """Return how much of a model its decoder blocks are."""
    return require_structure(description).parameters / description.parameters


TARGETS = {"20": Target(0.2), "30": Target(0.3), "50": Target(0.5), "model-20": Target(0.2, of_model=True)}


@dataclass(frozen=True)
class Pruning:
    """One pruning: names of row and target, and the seed that draws the calibration sequences."""

    row: str
    target: str
    seed: int

    @property
    def title(self) -> str:
        return f"seed {self.seed}, {self.row}, {TARGETS[self.target].title}"

    @property
    def untrained(self) -> "Pruning":
        """Return the cell that prunes the same and leaves it at that."""
        return replace(self, row=ROWS[self.row].untrained)


@dataclass(frozen=True)
class Plan:
    """Rows, targets and tasks that are asked for; seeds are counted from 0. Tasks are asked
    of `task_rows` at `task_targets`, with the first seed.
    """

    rows: Sequence[str]
    targets: Sequence[str]
    seeds: int
    distil_steps: int
    task_limit: int
    task_rows: Sequence[str]
    task_targets: Sequence[str]

    def prunings(self) -> list[Pruning]:
        """Rows that are quick first, all seeds of them, then the slow ones; of a seed one target after another."""

        def place(pruning: Pruning) -> tuple[bool, int, int]:
            return ROWS[pruning.row].slow, pruning.seed, self.targets.index(pruning.target)

        return sorted(self._all(), key=place)

    def _all(self) -> Iterator[Pruning]:
        for target in self.targets:
            for row in self.rows:
                for seed in range(self.seeds if ROWS[row].has_seeds else 1):
                    yield Pruning(row, target, seed)

    def is_asked(self, pruning: Pruning) -> bool:
        """Return whether its model is asked the tasks: of the first seed alone, as the error is of the questions."""
        return pruning.seed == 0 and pruning.row in self.task_rows and pruning.target in self.task_targets


def pruned_alike(cells: Sequence[Pruning]) -> list[list[Pruning]]:
    """Return the cells in their order, those together that differ in their training alone."""
    alike: dict[Pruning, list[Pruning]] = {}
    for pruning in cells:
        alike.setdefault(pruning.untrained, []).append(pruning)
    return list(alike.values())


def refusal(row: Row, description: ModelDescription, target: Target) -> str | None:
    """Why there is no such job, as the service would say; None where there is."""
    try:
        row.request(description, target.sparsity(description))
    except InvalidRequest as error:
        return str(error)
    return None
