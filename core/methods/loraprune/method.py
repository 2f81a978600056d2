"""LoRAPrune (Zhang, Chen, Shen, Yang, Ou, Yu, Zhuang 2023, arXiv:2305.18403): removal while adapters are trained."""

from torch import Tensor

from core.engine.pruning.protocols.units import StructuredMethod
from core.engine.pruning.schedule import cubic
from core.engine.pruning.units.adapted_model import (
    AdaptedModel,
    MovingAverage,
    effective_weight,
    estimated_gradient,
    of_those_left,
)
from core.engine.pruning.units.context import Scene
from core.engine.pruning.units.removal import Cut
from core.engine.recovery.adapters import MaskedLoraLinear
from core.methods.loraprune.info import LoRAPruneParameters


class LoRAPrune(StructuredMethod):
    """Importance of groups from the gradients of adapters alone.

    A weight's is (ĝ ⊙ (W + scale·BA))², ĝ = scale·(g_B·A + B·g_A − g_B·g_A) (eq. 8–10); summed over the group,
    normalised per linear layer, averaged over the steps.

    At every step the least important groups of a layer are masked, by a cubic schedule, and stay masked; at the end
    they are removed and the adapters merged into the weights that are left.
    """

    weight_reads = 1

    def __init__(self, parameters: LoRAPruneParameters) -> None:
        self.parameters = parameters

    def choose(self, context: Scene) -> Cut:
        assert context.calibration is not None
        recovery = self.parameters.training(context.calibration.shape[1])
        adapted = AdaptedModel(context, recovery)
        removal = GradualRemoval(context, adapted, recovery.steps, self.parameters.momentum)
        adapted.train(context.calibration, removal)
        adapted.write_merged()
        return removal.cut


class GradualRemoval:
    """Schedule that masks groups at each step of training; `cut` is what is kept so far."""

    def __init__(self, context: Scene, adapted: AdaptedModel, steps: int, momentum: float) -> None:
        self._context, self._adapted, self._steps = context, adapted, steps
        self._average = MovingAverage(momentum)
        self.cut = Cut(attention=context.attention, layers={})

    def after_backward(self, step: int) -> None:
        self._average.add(self._adapted.unit_sums(importance, normalised=True))
        counts = self._context.counts_at(cubic(step + 1, self._steps))
        self.cut = self._context.keep_highest(of_those_left(self._average.scores, self.cut), counts)
        self._adapted.keep_cut(self.cut)

    def after_step(self, step: int) -> None:
        """Do nothing: masked groups are not read, wherever their weights move."""


def importance(linear: MaskedLoraLinear) -> Tensor:
    """Return (ĝ ⊙ (W + scale·BA))² of each weight."""
    return (estimated_gradient(linear) * effective_weight(linear)).square()
