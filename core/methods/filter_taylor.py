"""Removal of the filters that change the loss least, by Taylor expansion (Molchanov 2016, arXiv:1611.06440)."""

from collections.abc import Sequence
from itertools import accumulate, takewhile

from torch import Tensor

from core.engine.datasets.subset import draw_images
from core.engine.pruning.filters.budget import Goal, Step, by_score, steps_until
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.filters.rankings import between_layers, taylor
from core.engine.pruning.network import Network
from core.engine.pruning.protocols.classifier import FilterMethod
from core.engine.removals.filter_rounds import FIGURES, remove_in_rounds
from core.methods.descriptions.classifiers import FilterTaylorParameters

_DEFAULT_ROUNDS = 50


class FilterTaylor(FilterMethod):
    """Ranking of the filters of all layers together, by the first-order estimate of the loss without each.

    The scores of each layer are divided by their L2 norm. Then λ per million operations is subtracted (section 2.2).

    Lifecycle: each round ranks on new images, removes the lowest few filters and fine-tunes, until the goal is met
    (figure 1).
    """

    def __init__(self, parameters: FilterTaylorParameters) -> None:
        self._parameters = parameters

    def prune(self, network: Network) -> None:
        parameters = self._parameters

        def choose(groups: CoupledChannels, goal: Goal, number: int) -> list[Step] | None:
            if goal.is_met(groups.parameters, groups.flops):
                return None
            steps = by_score(self._regularised(groups, self.scores(network, groups, number)), parameters.round_to)
            return _first_steps(steps_until(steps, groups, goal), self._units_per_round(network))

        remove_in_rounds(
            network,
            parameters,
            choose,
            retrain_steps=parameters.retrain_steps,
            flops_reduction=parameters.flops_reduction,
        )

    def scores(self, network: Network, groups: CoupledChannels, number: int = 0) -> Sequence[Tensor]:
        """Return the scores [units] of each group in round `number`; the lowest are removed first."""
        parameters = self._parameters
        images = draw_images(network.calibration, parameters.measured_images, parameters.seed + number)
        return between_layers(taylor(network, groups, images))

    def _units_per_round(self, network: Network) -> int:
        """Return the number of units to remove in a round."""
        units: int = sum(each["before"] for each in network.figures[FIGURES]["groups"])
        return self._parameters.filters_per_round or max(1, units // _DEFAULT_ROUNDS)

    def _regularised(self, groups: CoupledChannels, scores: Sequence[Tensor]) -> list[Tensor]:
        """Return Θ − λ·Θ_flops; Θ_flops is the millions of operations in all layers that removing one unit saves."""
        weight = self._parameters.flops_weight
        if not weight:
            return list(scores)
        places = range(len(groups.groups))
        saved = [groups.flops - groups.flops_after([int(place == each) for each in places]) for place in places]
        return [score_U - weight * flops / 1e6 for score_U, flops in zip(scores, saved, strict=True)]


def _first_steps(steps: Sequence[Step], units: int) -> list[Step]:
    """Return the first steps that together have at most `units` units, and at least one step."""
    sums = accumulate(len(step.units) for step in steps)
    count = sum(1 for _ in takewhile(lambda total: total <= units, sums))
    return list(steps[: max(1, count)])
