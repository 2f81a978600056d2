"""Runs of removals on language models: the plan and the pass of each kind, which need torch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch

from core.engine.architectures.architecture import EXPERTS_KIND
from core.engine.architectures.description import require_structure
from core.engine.cuts import Cut, Removal
from core.engine.models.folder import ModelFolder
from core.engine.models.precision import forward_dtype, gradient_dtype
from core.engine.models.tensors import DTYPES
from core.engine.options.axes import PropagationOptions
from core.engine.pruning.allocation import global_counts
from core.engine.pruning.blocks.language_pass import UnitRemovalPass, UnitRemovalPlan
from core.engine.pruning.compensation.expert_refit import ExpertRefit, FittedRouting
from core.engine.pruning.compensation.unit_refit import UnitRefit
from core.engine.pruning.plan import LayerwisePlan, PruningPlan
from core.engine.pruning.results import PruneResult
from core.engine.pruning.solver import Solver
from core.engine.pruning.streams.hidden_states import ActivationBudget
from core.engine.pruning.units.method import PrunedBlock, UnitMethod
from core.engine.pruning.units.removal import UnitCounts
from core.engine.pruning.units.removal_config import config_after_removal
from core.engine.pruning.zeros_pass import LayerwisePass
from core.engine.quantization.roundings import rounding_for
from core.engine.removals.experts import SECTION
from core.engine.removals.weights import LayerSelection, prunable_linears, selection_of
from secateur_wire.base import JsonObject
from secateur_wire.job_body import Quantization

P = TypeVar("P", bound=PruningPlan)


@dataclass(frozen=True)
class PassRequest:
    """Request for a plan: the kind of removal, the cut with the device's alignment, and the method with its id.

    With a `quantization` the pass rounds all linear layers of the blocks; only a pass that keeps all shapes does.
    """

    removal: Removal
    cut: Cut
    method_id: str
    method: Any
    device: torch.device
    quantization: Quantization | None = None


class LanguagePass(Protocol[P]):
    """Pass over the blocks of a language model that can continue with smaller micro-batches.

    `budget` is that of its hidden states.
    """

    folder: ModelFolder
    plan: P
    budget: ActivationBudget

    def run(self) -> PruneResult: ...

    def halve_micro_batches(self, error: str) -> bool: ...


class LanguageRun(ABC, Generic[P]):
    """Run of a kind of removal on language models. `protocols` are its methods' protocols, the preferred one first."""

    protocols: ClassVar[tuple[type[Any], ...]]

    @abstractmethod
    def plan(self, folder: ModelFolder, request: PassRequest) -> P:
        """Return the plan of a pass; raises InvalidSparsity where the device's alignment rules the sparsity out."""

    @abstractmethod
    def walk(self, folder: ModelFolder, plan: P, **setting: Any) -> LanguagePass[P]:
        """Return the pass that executes the plan; `setting` are the keyword arguments of `BlockPass`."""

    def pruned_config(self, folder: ModelFolder, plan: P) -> JsonObject:
        """Return the config.json of a model pruned by this plan. It does not depend on the choice of units."""
        return folder.raw_config


class WeightRun(LanguageRun[LayerwisePlan]):
    """Run of the removal of weights from a language model."""

    protocols = (Solver,)

    def plan(self, folder: ModelFolder, request: PassRequest) -> LayerwisePlan:
        description, cut = folder.description, request.cut
        options = selection_of(cut.options)
        linears = prunable_linears(description, options)
        dtype = DTYPES[description.dtype]
        allocation, propagation = options.allocation_options, options.propagation_options
        sparsities = "uniform" if allocation is None else allocation.allocation
        requested: str = "auto" if propagation is None else propagation.forward_dtype
        if requested == "auto" and folder.family.discovered_by is not None:  # its code is untested in other dtypes
            requested = description.dtype
        counts = None
        if options.ranks_entire_model:
            counts = global_counts(linears, lambda linear: folder.read(f"{linear.name}.weight"), cut.sparsity)
        return LayerwisePlan(
            method_id=request.method_id,
            pattern=cut.pattern,
            sparsity=cut.sparsity,
            parameters=options,
            linears=tuple(linears),
            sparsities=tuple(sparsities) if isinstance(sparsities, list) else (cut.sparsity,) * description.layers,
            counts=counts,
            dtype=dtype,
            forward_dtype=forward_dtype(requested, dtype, request.device),
            device=request.device,
            method=request.method,
            rounding=None if request.quantization is None else rounding_for(request.quantization, dtype),
        )

    def walk(self, folder: ModelFolder, plan: LayerwisePlan, **setting: Any) -> LayerwisePass:
        return LayerwisePass(folder, plan, **setting)


class UnchangedLayers(LayerSelection, PropagationOptions):
    """Options of a pass that changes no layer."""


class VocabularyRun(WeightRun):
    """Run over a model that lost its tokens before the pass, which only measures the model and writes it."""

    def plan(self, folder: ModelFolder, request: PassRequest) -> LayerwisePlan:
        return super().plan(folder, replace(request, cut=replace(request.cut, options=UnchangedLayers(), sparsity=0.0)))


@dataclass(frozen=True)
class UnitRun(LanguageRun[UnitRemovalPlan]):
    """Run that removes units or whole blocks in one pass over the blocks, of `pass_type`."""

    pass_type: type[UnitRemovalPass] = UnitRemovalPass
    protocols = (UnitMethod,)

    def plan(self, folder: ModelFolder, request: PassRequest) -> UnitRemovalPlan:
        cut, dtype = request.cut, DTYPES[folder.description.dtype]
        device = request.device
        requested = "" if cut.options.forward_options is None else cut.options.forward_options.forward_dtype
        if requested == "auto" and folder.family.discovered_by is not None:  # its code is untested in other dtypes
            requested = ""
        return UnitRemovalPlan(
            method_id=request.method_id,
            sparsity=cut.sparsity,
            parameters=cut.options,
            layout=cut.layout,
            at_least=cut.at_least,
            removal=request.removal.check(cut),
            dtype=dtype,
            forward_dtype=forward_dtype(requested, dtype, device) if requested else gradient_dtype(dtype, device),
            device=device,
            method=request.method,
        )

    def walk(self, folder: ModelFolder, plan: UnitRemovalPlan, **setting: Any) -> UnitRemovalPass:
        return self.pass_type(folder, plan, **setting)

    def pruned_config(self, folder: ModelFolder, plan: UnitRemovalPlan) -> JsonObject:
        structure = require_structure(folder.description)
        counts = UnitCounts(layers=plan.removal.remaining_counts(folder.description))
        return config_after_removal(folder, structure, plan.kinds, counts)


class WidthPass(UnitRemovalPass):
    """Pass that makes layers narrower."""

    fits_experts = True


@dataclass(frozen=True)
class KeptExpertsRow:
    """Experts that one decoder layer keeps, in the report: their numbers, the scores of all experts, and the routing.

    `kept` are numbers of the source model. There are no scores where the choice was random, and no routing where
    nothing was fitted. `routing` has the tokens of the experts that are left, in their order.
    """

    name: str
    layer: int
    kept: tuple[int, ...]
    scores: tuple[float, ...]
    routing: FittedRouting | None = None

    @classmethod
    def saved(cls, row: Mapping[str, Any]) -> "KeptExpertsRow":
        """Return a row from its JSON."""
        routing = row["routing"]
        if routing is not None:
            routing = FittedRouting(
                tuple(routing["tokens"]), tuple(routing["tokens_left"]), routing["error"], routing["refitted"]
            )
        return cls(row["name"], row["layer"], tuple(row["kept"]), tuple(row["scores"]), routing)


class ExpertPass(UnitRemovalPass):
    """Pass that removes whole experts, chosen block by block; the report lists those that stay."""

    fits_experts = True

    def __init__(self, folder: ModelFolder, plan: UnitRemovalPlan, **setting: Any) -> None:
        super().__init__(folder, plan, **setting)
        self._rows: list[KeptExpertsRow] = []

    def record_block(self, index: int, answer: PrunedBlock, refit: UnitRefit | None) -> None:
        kept = answer.units.get(EXPERTS_KIND)
        if kept is not None:
            routing = refit.routing.get(index) if isinstance(refit, ExpertRefit) else None
            scores = tuple(answer.scores.get(EXPERTS_KIND, ()))
            name = self.streamed.block_prefix(index)
            self._rows.append(KeptExpertsRow(name, index, tuple(kept), scores, routing))

    @property
    def state(self) -> Mapping[str, object]:
        return {**super().state, "experts": [asdict(row) for row in self._rows]}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._rows = [KeptExpertsRow.saved(row) for row in state["experts"]]

    @property
    def sections(self) -> Mapping[str, Sequence[KeptExpertsRow]]:
        return {SECTION: self._rows}


LANGUAGE_RUNS: dict[str, LanguageRun[Any]] = {
    "weights": WeightRun(),
    "widths": UnitRun(WidthPass),
    "layers": UnitRun(),
    "experts": UnitRun(ExpertPass),
    "vocabulary": VocabularyRun(),
}
"""Runs by kind of removal. Filters are removed by their methods, in the loaded network."""
