"""Run of a kind that removes units or whole blocks in one pass over the blocks."""

from abc import abstractmethod
from typing import Any, ClassVar

from core.engine.architectures.description import require_structure
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.models.folder import ModelFolder
from core.engine.models.precision import forward_dtype, gradient_dtype
from core.engine.models.tensors import DTYPES
from core.engine.pruning.blocks.language_pass import UnitRemovalPass, UnitRemovalPlan
from core.engine.pruning.units.method import UnitMethod
from core.engine.pruning.units.removal import UnitCounts
from core.engine.pruning.units.removal_config import config_after_removal
from core.engine.removals.run import LanguageRun, PassRequest
from secateur_wire.base import JsonObject


class UnitRun(LanguageRun[UnitRemovalPlan]):
    """Run by `pass_type`."""

    protocols = (UnitMethod,)
    pass_type: ClassVar[type[UnitRemovalPass]] = UnitRemovalPass

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
        counts = UnitCounts(layers=self.remaining_counts(folder, plan))
        return config_after_removal(folder, structure, plan.kinds, counts)

    @abstractmethod
    def remaining_counts(self, folder: ModelFolder, plan: UnitRemovalPlan) -> dict[int, LayerCounts]:
        """Return the counts of each layer that stays; they do not depend on which layers are removed."""
