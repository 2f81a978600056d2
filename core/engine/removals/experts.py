"""Experts: each mixture of a model loses the same number of whole experts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import Field

from core.engine.architectures.architecture import EXPERTS_KIND, Experts, Routing
from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.architectures.unit_counts import ROUNDING, LayerCounts
from core.engine.architectures.units import EXPERT_UNITS, UnitKind
from core.engine.cuts import Cut, Removal, RemovalPlan
from core.engine.options.axes import CutRefit, MethodParameters, RefitOptions
from secateur_wire.errors import InvalidSparsity, UnsupportedArchitecture

SECTION: Final = "experts"
"""Section of the report with a row for each layer that lost experts."""
_DEFAULT_REFIT = CutRefit(refit="auto", ridge=0.1)


class ExpertOptions(MethodParameters, RefitOptions):
    """Options of methods that remove whole experts, the same number from each layer."""

    compensation: CutRefit | None = Field(
        None,
        description="Refit: fit the last matrices of the remaining experts, and the router, to the outputs of the "
        "dense model's layers, "
        'without training. {"refit": 0}: no refit, as in the papers. Unset: '
        f'{{"refit": "{_DEFAULT_REFIT.refit}", "ridge": {_DEFAULT_REFIT.ridge}}}.',
    )

    @property
    def default_refit(self) -> CutRefit | None:
        return _DEFAULT_REFIT


@dataclass(frozen=True)
class ExpertPlan(RemovalPlan):
    """Plan in which each mixture keeps `left` experts."""

    left: int = 0

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        return (EXPERT_UNITS,)

    def remaining_counts(self, description: ModelDescription) -> dict[int, LayerCounts]:
        structure = require_structure(description)
        return {
            layer: LayerCounts.of(
                structure, layer, self.kinds, {kind.name: min(kind.units(shape), self.left) for kind in self.kinds}
            )
            for layer, shape in enumerate(structure.layers)
        }


class ExpertRemoval(Removal):
    """Removal of whole experts, the same number from each layer."""

    def check(self, cut: Cut) -> ExpertPlan:
        return ExpertPlan(left=_kept_experts(cut.language_model, cut.sparsity, at_least=cut.at_least))

    def reachable(self, cut: Cut) -> Sequence[float]:
        return expert_sparsities(cut.language_model)


EXPERTS = ExpertRemoval(
    "experts",
    latency_refusal="each token goes to as many experts as before, so removing experts does not change the latency as "
    "needed: use target.parameters or target.bytes",
)


def _kept_experts(description: ModelDescription, ratio: float, *, at_least: bool = False) -> int:
    """Return the number of experts each layer keeps so that about `ratio` of a model's parameters goes, or no less.

    Raises UnsupportedArchitecture where the model cannot lose any. Raises InvalidSparsity, with the nearest allowed
    number, where a router could not choose among the experts left.
    """
    experts, routing, before, share = _removable(description)
    exact = ratio / share
    removed = math.ceil(exact - ROUNDING) if at_least else round(exact)
    left = before - removed
    reason = None if left > 0 else "none is not a mixture"
    if ratio > 0 and removed < 1:
        reason = "an expert of each layer is the least that goes"
    reason = reason or routing.refusal(left, experts.top_k)
    if reason is None or not ratio:
        return left
    allowed = [each for each in range(1, before) if routing.refusal(each, experts.top_k) is None]
    message = f"sparsity {ratio:g} leaves {left} of {before} experts a layer, and {reason}"
    if not allowed:
        raise InvalidSparsity(f"{message}: no experts of this model can go", param="sparsity")
    nearest = min(allowed, key=lambda each: (abs(each - left), each))
    raise InvalidSparsity(
        f"{message}; the nearest allowed number is {nearest}, at sparsity {(before - nearest) * share:.6f}",
        param="sparsity",
    )


def expert_sparsities(description: ModelDescription) -> list[float]:
    """Return the shares of a model's parameters that whole numbers of experts can remove, ascending from 0."""
    experts, routing, before, share = _removable(description)
    allowed = [each for each in range(before - 1, 0, -1) if routing.refusal(each, experts.top_k) is None]
    return [0.0, *((before - left) * share for left in allowed)]


def _removable(description: ModelDescription) -> tuple[Experts, Routing, int, float]:
    """Return a model's experts, their routing and number, and the parameter share of one expert in every layer."""
    experts = description.known_as.experts
    if experts is None:
        raise UnsupportedArchitecture(f"{description.architecture} has no experts that could go", param="model")
    if experts.routing is None:
        raise UnsupportedArchitecture(
            f"{description.architecture} cannot lose whole experts: {experts.kept_because}", param="model"
        )
    structure = require_structure(description)
    counts = {layer.sizes[EXPERTS_KIND] for layer in structure.layers} - {0}
    if len(counts) != 1:
        raise UnsupportedArchitecture(
            f"{description.architecture} cannot lose whole experts: its layers have different numbers of them "
            f"({sorted(counts)}), but its config has one number for all",
            param="model",
        )
    with_experts = sum(layer.sizes[EXPERTS_KIND] > 0 for layer in structure.layers)
    share = with_experts * structure.facts["expert_parameters"] / description.parameters
    return experts, experts.routing, counts.pop(), share


@dataclass(frozen=True)
class Points:
    """Points (position on the axis of layers, share): the state `before`, the part `removed`, or the state `after`."""

    label: str
    of: Literal["before", "removed", "after"]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class SharePanel:
    """Panel of shares in the picture of the layers; `label` is its axis label."""

    label: str
    series: Sequence[Points]


def token_panels(rows: Sequence[Mapping[str, Any]]) -> list[SharePanel]:
    """Return a panel of each expert's share of its layer's tokens; none where nothing was fitted.

    `rows` are the rows of the section. Shares before are left of the layer's position, shares after are right of it.
    """
    kept: list[tuple[float, float]] = []
    removed: list[tuple[float, float]] = []
    after: list[tuple[float, float]] = []
    routed = [row for row in rows if row["routing"] is not None]
    for row in routed:
        for expert, share in enumerate(_shares(row["routing"]["tokens"])):
            (kept if expert in row["kept"] else removed).append((row["layer"] - 0.2, share))
        after += [(row["layer"] + 0.2, share) for share in _shares(row["routing"]["tokens_left"])]
    series = (
        Points("before, stays", "before", kept),
        Points("before, goes", "removed", removed),
        Points("after", "after", after),
    )
    return [SharePanel("tokens of an expert", series)] if routed else []


def _shares(tokens: Sequence[int]) -> list[float]:
    return [each / max(sum(tokens), 1) for each in tokens]
