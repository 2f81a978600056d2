"""LoRAPrune (Zhang, Chen, Shen, Yang, Ou, Yu, Zhuang 2023, arXiv:2305.18403): removal while adapters are trained."""

from torch import Tensor

from core.engine.pruning.schedule import cubic
from core.engine.pruning.units.method import UnitSelectionContext
from core.engine.recovery.adapters import MaskedLoraLinear
from core.methods.adapter_model import (
    AdapterMethod,
    AdapterModel,
    RemovalSchedule,
    effective_weight,
    estimated_gradient,
)
from core.methods.descriptions.structured import LoRAPruneParameters


class LoRAPrune(AdapterMethod):
    """Importance of groups from the gradients of adapters alone.

    The importance of a weight is (ĝ ⊙ (W + scale·BA))² with ĝ = scale·(g_B·A + B·g_A − g_B·g_A) (eq. 8–10). It is
    summed over the group, normalised per linear layer, and averaged over the steps.

    Every step masks the least important groups of a layer, by a cubic schedule; masked groups stay masked. At the end
    they are removed, and the adapters are merged into the remaining weights.
    """

    parameters: LoRAPruneParameters

    def schedule(self, context: UnitSelectionContext, adapter_model: AdapterModel) -> RemovalSchedule:
        return CubicRemovalSchedule(context, adapter_model, self.parameters.momentum)


class CubicRemovalSchedule(RemovalSchedule):
    """Schedule that masks groups at each training step."""

    def after_backward(self, step: int) -> None:
        self.add(self._adapter_model.unit_sums(importance, normalised=True))
        self.keep_highest(self.scores, cubic(step + 1, self._adapter_model.steps))
        self._adapter_model.keep_only(self.kept)

    def after_step(self, step: int) -> None:
        """Do nothing: masked groups are never read, so changes to their weights have no effect."""


def importance(linear: MaskedLoraLinear) -> Tensor:
    """Return (ĝ ⊙ (W + scale·BA))² of each weight."""
    return (estimated_gradient(linear) * effective_weight(linear)).square()
