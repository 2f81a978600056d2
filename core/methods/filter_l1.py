"""Filters of smallest L1 norm (Li 2016, arXiv:1608.08710)."""

import bisect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from core.counting import counted
from core.engine.datasets.image_set import ImageSet
from core.engine.datasets.subset import draw_images
from core.engine.pruning.filters import rankings
from core.engine.pruning.filters.budget import Goal, Step, by_rate, counts, empty_layer_error, steps_until
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.network import Network, mean_loss
from core.engine.pruning.protocols.classifier import FilterMethod
from core.engine.removals.filter_rounds import remove_in_rounds
from core.methods.descriptions.classifiers import FilterL1Parameters
from secateur_wire.errors import InvalidParameters

_RATES = tuple(tenth / 10 for tenth in range(1, 10))


@dataclass(frozen=True)
class Curve:
    """Mean losses of a group, in nats, at ascending rates: the first rate is 0, the last removes all units but one."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    def increase(self, rate: float) -> float:
        """Return the rise of the loss at a rate: linear interpolation between the measured rates, never decreasing."""
        rises = list(accumulate((loss - self.losses[0] for loss in self.losses), max))
        after = min(bisect.bisect_left(self.rates, rate), len(self.rates) - 1)
        if after == 0:
            return rises[0]
        low, high = self.rates[after - 1], self.rates[after]
        share = min(1.0, (rate - low) / (high - low))
        return rises[after - 1] + share * (rises[after] - rises[after - 1])


@torch.no_grad()
def curves(network: Network, groups: CoupledChannels, scores: Sequence[Tensor], images: ImageSet) -> list[Curve]:
    """Measure the curve of each group; units are zeroed in ascending order of score."""
    dense = mean_loss(network, images)
    scanned = []
    for place, (group, score_U) in enumerate(counted(list(zip(groups.groups, scores, strict=True)), "scanning groups")):
        order = torch.argsort(score_U, stable=True).tolist()
        removed = sorted({*(int(rate * group.units) for rate in _RATES), group.units - 1} - {0})
        losses = []
        for count in removed:
            with groups.silenced({place: order[:count]}):
                losses.append(mean_loss(network, images))
        rates = [count / group.units for count in removed]
        scanned.append(Curve((0.0, *rates), (dense, *losses)))
        network.progress.log(f"sensitivity of {group.name}: loss {dense:.4f} to {losses[-1]:.4f}")
    return scanned


class FilterL1(FilterMethod):
    """L1 filter pruning: each filter F is scored by Σ|F| within its layer (section 3.1).

    A filter is removed together with its batch-norm channel and the kernels that read it in the next layers. In a
    residual stage the filters of the shortcut lead the group: their scores decide (section 3.3).

    Lifecycle of a round: score; divide the removal among the groups by `rates`; with `greedy`, choose again from the
    image on, without the kernels that are already removed (section 3.3); remove; retrain.
    """

    def __init__(self, parameters: FilterL1Parameters) -> None:
        self._parameters = parameters

    def prune(self, network: Network) -> None:
        parameters = self._parameters

        def choose(groups: CoupledChannels, goal: Goal, number: int) -> list[Step] | None:
            if number >= parameters.rounds:
                return None
            return self._choose(network, groups, goal.part((number + 1) / parameters.rounds), number)

        remove_in_rounds(network, parameters, choose, retrain_steps=parameters.retrain_steps)

    def scores(self, network: Network, groups: CoupledChannels) -> list[Tensor]:
        return [self.score(network, groups, place, 0) for place in range(len(groups.groups))]

    def _choose(self, network: Network, groups: CoupledChannels, goal: Goal, number: int) -> list[Step]:
        scores = [self.score(network, groups, place, number) for place in range(len(groups.groups))]
        steps = self._choose_by_rates(network, groups, scores, goal, number)
        return self._greedily(network, groups, steps, number) if self._parameters.selection == "greedy" else steps

    def score(
        self,
        network: Network,
        groups: CoupledChannels,
        place: int,
        number: int,
        dropped: rankings.Dropped | None = None,
    ) -> Tensor:
        """Return the scores [units] of a group; the units of lowest score are removed first."""
        group, order = groups.groups[place], self._parameters.order
        if order == "random":
            generator = torch.Generator().manual_seed((self._parameters.seed * 1_000_003 + number) * 4096 + place)
            return torch.rand(group.units, generator=generator)
        sums_U = rankings.kernel_sums(network.model, group, power=1, dropped=dropped)
        return sums_U if order == "smallest" else -sums_U

    def _choose_by_rates(
        self, network: Network, groups: CoupledChannels, scores: Sequence[Tensor], goal: Goal, number: int
    ) -> list[Step]:
        """Choose the units of each group by `rates` and the given scores."""
        rates, round_to = self._parameters.rates, self._parameters.round_to
        if rates == "uniform":
            return steps_until(by_rate(scores, round_to, lambda place, rate: rate), groups, goal)
        if rates == "sensitivity":
            measured = draw_images(
                network.calibration, self._parameters.measured_images, self._parameters.seed + number
            )
            scanned = curves(network, groups, scores, measured)
            network.figures.setdefault(
                "sensitivity",
                [
                    {"name": group.name, "rates": list(curve.rates), "losses": list(curve.losses)}
                    for group, curve in zip(groups.groups, scanned, strict=True)
                ],
            )
            steps = by_rate(scores, round_to, lambda place, rate: scanned[place].increase(rate))
            return steps_until(steps, groups, goal)
        return self._choose_by_listed_rates(groups, scores, goal, rates)

    def _choose_by_listed_rates(
        self, groups: CoupledChannels, scores: Sequence[Tensor], goal: Goal, rates: Sequence[float]
    ) -> list[Step]:
        """Choose by the rates in the request times a common scale; a step's value is the scale that takes it."""
        names = [group.name for group in groups.groups]
        if len(rates) != len(names):
            raise InvalidParameters(
                f"parameters.rates has {len(rates)} rates, but the model has {len(names)} groups of filters, in "
                f"this order: {', '.join(names)}",
                param="parameters.rates",
            )
        if not any(rates):
            raise InvalidParameters("parameters.rates are all 0, so nothing would be removed", param="parameters.rates")
        steps = [
            step
            for step in by_rate(
                scores,
                self._parameters.round_to,
                lambda place, rate: rate / rates[place] if rates[place] else float("inf"),
            )
            if rates[step.group]
        ]
        taken = steps_until(steps, groups, goal)
        highest = max(range(len(rates)), key=lambda place: rates[place])
        if taken and taken[-1].value * rates[highest] >= 1:
            possible = [step for step in steps if step.value * rates[highest] < 1]
            raise empty_layer_error(groups, goal, counts(possible, groups), names[highest])
        return taken

    def _greedily(self, network: Network, groups: CoupledChannels, steps: Sequence[Step], number: int) -> list[Step]:
        """Choose as many units of each group again; the scores leave out kernels whose inputs are already removed."""
        dropped: dict[str, list[Tensor]] = defaultdict(list)
        chosen = []
        for place, count in enumerate(counts(steps, groups)):
            without = {layer: torch.cat(inputs) for layer, inputs in dropped.items()}
            score_U = self.score(network, groups, place, number, without)
            units = torch.argsort(score_U, stable=True)[:count]
            chosen.append(Step(0.0, place, tuple(units.tolist())))
            for member in groups.groups[place].readers:
                dropped[member.name].append(member.slices[0].indices_UK[units].flatten())
        return chosen
