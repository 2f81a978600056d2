"""LoRAPrune (Zhang, Chen, Shen, Yang, Ou, Yu, Zhuang 2023, arXiv:2305.18403): removal while adapters are trained."""

from torch import Tensor

from core.engine.pruning.protocols.units import UnitMethod
from core.engine.pruning.schedule import cubic
from core.engine.pruning.units.adapter_model import (
    AdapterModel,
    MovingAverage,
    effective_weight,
    estimated_gradient,
    mask_removed,
)
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import KeptUnits
from core.engine.recovery.adapters import MaskedLoraLinear
from core.methods.descriptions.structured import LoRAPruneParameters


class LoRAPrune(UnitMethod):
    """Importance of groups from the gradients of adapters alone.

    The importance of a weight is (ĝ ⊙ (W + scale·BA))² with ĝ = scale·(g_B·A + B·g_A − g_B·g_A) (eq. 8–10). It is
    summed over the group, normalised per linear layer, and averaged over the steps.

    Every step masks the least important groups of a layer, by a cubic schedule; masked groups stay masked. At the end
    they are removed, and the adapters are merged into the remaining weights.
    """

    weight_reads = 1
    tries_models = True

    def __init__(self, parameters: LoRAPruneParameters) -> None:
        self.parameters = parameters

    def select(self, context: UnitSelectionContext) -> KeptUnits:
        assert context.calibration is not None
        recovery = self.parameters.training(context.calibration.shape[1])
        adapter_model = AdapterModel(context, recovery)
        schedule = CubicRemovalSchedule(context, adapter_model, recovery.steps, self.parameters.momentum)
        adapter_model.train(context.calibration, schedule)
        adapter_model.write_merged()
        return schedule.kept


class CubicRemovalSchedule:
    """Schedule that masks groups at each training step; `kept` are the groups kept so far."""

    def __init__(self, context: UnitSelectionContext, adapter_model: AdapterModel, steps: int, momentum: float) -> None:
        self._context, self._adapter_model, self._steps = context, adapter_model, steps
        self._average = MovingAverage(momentum)
        self.kept = KeptUnits(layers={})

    def after_backward(self, step: int) -> None:
        self._average.add(self._adapter_model.unit_sums(importance, normalised=True))
        counts = self._context.counts_at(cubic(step + 1, self._steps))
        self.kept = self._context.keep_highest(mask_removed(self._average.scores, self.kept), counts)
        self._adapter_model.keep_only(self.kept)

    def after_step(self, step: int) -> None:
        """Do nothing: masked groups are never read, so changes to their weights have no effect."""


def importance(linear: MaskedLoraLinear) -> Tensor:
    """Return (ĝ ⊙ (W + scale·BA))² of each weight."""
    return (estimated_gradient(linear) * effective_weight(linear)).square()
