"""Filters of smallest L1 norm (Li 2016, arXiv:1608.08710), and of least effect by Taylor expansion (Molchanov 2016).

Their importances, the removal that meets a goal, and the rounds that remove and retrain. Molchanov (arXiv:1611.06440,
section 2.2): a unit's feature map z is the input of the layers that read it, after batch-norm and activation, and on
every branch of a residual connection. Each unit has a gate g that multiplies z for all of them: ∂C/∂g is Σ z·∂C/∂z over
the places and channels of the map, and g = 0 is the network without the unit.
"""

import bisect
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.counting import counted
from core.engine.datasets.image_set import ImageSet, draw_images
from core.engine.pruning.network import Network, mean_loss
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.pruning.retraining import restore_round, retrain_between, save_round
from core.methods.classifiers.coupled_channels import CoupledChannels
from core.methods.descriptions.classifiers import FilterL1Parameters, FilterParameters, FilterTaylorParameters
from secateur_wire.errors import InvalidParameters, InvalidSparsity

_FIGURES = "filters"
"""Key in the report for the units removed from each group and the sizes after each round."""
_ROUNDING = 0.5
"""Tolerance in parameters, because the share is a float."""
_SCANNED = tuple(tenth / 10 for tenth in range(1, 10))
_TAYLOR_ROUNDS = 50


def kernel_sums(groups: CoupledChannels, place: int, power: int = 1) -> Tensor:
    """Return Σ|w|^power over each unit's filters in a group's leading layers, [units]; Li's score with power 1."""
    from torch_pruning.pruner.importance import GroupMagnitudeImportance

    group, graph = groups.groups[place], groups.pruner.DG
    leaders = [groups.model.get_submodule(name) for name in group.leaders]
    norm_C = GroupMagnitudeImportance(p=power, group_reduction="sum", normalizer=None)(
        [
            item
            for item in group.traced
            if item.dep.target.module in leaders and graph.is_out_channel_pruning_fn(item.dep.handler)
        ]
    )
    return torch.zeros(group.units, dtype=torch.float64).index_add(0, group.unit_C, norm_C.cpu().double())


def taylor(network: Network, groups: CoupledChannels, images: ImageSet) -> list[Tensor]:
    """Return |1/M Σ_m z_m·∂C/∂z_m| averaged over images, [units] for each group; M is the size of the map.

    The absolute value is taken for each image. Higher is kept; the scores are not normalised.
    """
    totals = [torch.zeros(group.units, dtype=torch.float64, device=network.device) for group in groups.groups]
    for pixels_BCHW, labels_B in network.batches(images):
        gates = open_gates(network, groups, len(labels_B))
        with groups.gated(gates):
            loss = nn.functional.cross_entropy(network.logits(pixels_BCHW), labels_B, reduction="sum")
        for total_U, gradient_BU in zip(totals, torch.autograd.grad(loss, gates), strict=True):
            total_U += gradient_BU.abs().sum(dim=0)
    return [
        total_U / len(images) / (groups.positions[group.leaders[0]] * group.size)
        for total_U, group in zip(totals, groups.groups, strict=True)
    ]


def open_gates(network: Network, groups: CoupledChannels, images: int) -> list[Tensor]:
    """Return a gate of 1 for each unit of each image, [images, units] for each group."""
    return [torch.ones(images, group.units, device=network.device, requires_grad=True) for group in groups.groups]


def between_layers(scores: Sequence[Tensor]) -> list[Tensor]:
    """Return scores comparable between layers, divided by their L2 norm in each (section 2.2): float64, on the CPU."""
    on_cpu = [each.detach().cpu().double() for each in scores]
    return [each / (each.norm() or 1.0) for each in on_cpu]


@dataclass(frozen=True)
class Step:
    """Units of a group that are removed together; the steps of lowest `value` come first."""

    value: tuple[float, ...]
    group: int
    units: tuple[int, ...]


@dataclass(frozen=True)
class Goal:
    """Removal to reach: at least a share of the parameters and of the operations of the original model."""

    parameters: int
    flops: int
    sparsity: float
    flops_reduction: float = 0.0

    def is_met(self, parameters: int, flops: int) -> bool:
        return (
            parameters <= self.parameters * (1 - self.sparsity) + _ROUNDING
            and flops <= self.flops * (1 - self.flops_reduction) + _ROUNDING
        )


def ranked(
    scores: Sequence[Tensor], round_to: int, value: Callable[[int, float], tuple[float, ...]] | None = None
) -> list[Step]:
    """Return the steps of all groups, ranked together by the mean score of their units, or by `value(group, rate)`.

    Scores are [units] for each group, higher is kept; earlier units win ties. The rate is the share of the group that
    is removed after the step. A group keeps a multiple of `round_to` units, and at least one.
    """
    steps = []
    for place, score_U in enumerate(scores):
        order, units = torch.argsort(score_U, stable=True).tolist(), len(score_U)
        widths = [units, *range((units - 1) // round_to * round_to, 0, -round_to)]
        for above, below in pairwise(widths):
            part = order[units - above : units - below]
            mean = (float(score_U[part].mean()),)
            steps.append(Step(value(place, (units - below) / units) if value else mean, place, tuple(part)))
    return sorted(steps, key=lambda step: step.value)


def steps_until(steps: Sequence[Step], groups: CoupledChannels, goal: Goal) -> list[Step]:
    """Return the fewest steps, from the first on, that meet the goal.

    Raises InvalidSparsity where all steps together do not meet it; the error names the layer with the largest units and
    the largest possible removal.
    """

    def is_met(count: int) -> bool:
        return goal.is_met(*groups.after(counts(steps[:count], groups)))

    count = bisect.bisect_left(range(len(steps) + 1), True, key=is_met)
    if count > len(steps):
        places = range(len(groups.groups))
        largest = min(places, key=lambda place: groups.after_one(place)[0], default=None)
        name = "the layers that may be pruned" if largest is None else groups.groups[largest].name
        raise _empty_layer_error(groups, goal, steps, name)
    return list(steps[:count])


def _empty_layer_error(groups: CoupledChannels, goal: Goal, steps: Sequence[Step], name: str) -> InvalidSparsity:
    """Return the error that a goal would remove an entire layer; all that can be removed are these steps."""
    parameters, flops = groups.after(counts(steps, groups))
    # rounded down, so that it stays possible
    text = f"{int((1 - parameters / goal.parameters) * 1000) / 1000:.3f} of the model's parameters"
    requested = f"sparsity {goal.sparsity:g}"
    if goal.flops_reduction:
        text += f" and {int((1 - flops / goal.flops) * 1000) / 1000:.3f} of its operations"
        requested += f" and flops_reduction {goal.flops_reduction:g}"
    return InvalidSparsity(
        f"{requested} would remove everything that is left of {name}: at most {text} can be removed", param="sparsity"
    )


def counts(steps: Sequence[Step], groups: CoupledChannels) -> list[int]:
    """Return the number of units that the steps remove from each group."""
    removed = [0] * len(groups.groups)
    for step in steps:
        removed[step.group] += len(step.units)
    return removed


class FilterMethod(ClassifierMethod):
    """Method that removes filters in rounds, and can score them without removing any."""

    def __init__(self, parameters: FilterParameters) -> None:
        self._parameters: Any = parameters

    @abstractmethod
    def scores(self, network: Network, groups: CoupledChannels, number: int = 0) -> Sequence[Tensor]:
        """Return the scores [units] of each group in round `number`; the lowest are removed first."""

    @abstractmethod
    def choose(self, network: Network, groups: CoupledChannels, goal: Goal, number: int) -> list[Step] | None:
        """Choose the steps of a round, counted from 0; None ends the rounds."""

    def prune(self, network: Network) -> None:
        """Remove the steps that `choose` returns and retrain, round by round, from the last saved round on.

        Raises WorkStopped when the job is stopped, InvalidSparsity where a goal would remove an entire layer.
        """
        parameters = self._parameters
        image_shape = network.calibration.batch([0]).shape[1:]
        layers = [layer.name for layer in network.layers]
        saved = restore_round(network)
        groups = CoupledChannels.of(network.model, image_shape, is_checked=saved is not None).among(layers)
        if saved is None:
            network.figures[_FIGURES] = _dense(groups)
        record, number = network.figures[_FIGURES], saved or 0
        before = {name: record[name]["before"] for name in ("parameters", "flops")}
        goal = Goal(**before, sparsity=network.sparsity, flops_reduction=getattr(parameters, "flops_reduction", 0.0))
        while (steps := self.choose(network, groups, goal, number)) is not None:
            units: dict[int, list[int]] = {}
            for step in steps:
                units.setdefault(step.group, []).extend(step.units)
            groups.remove(units)
            losses = retrain_between(
                network,
                steps=parameters.retrain_steps,
                learning_rate=parameters.retrain_learning_rate,
                batch_size=parameters.retrain_batch_size,
                seed=parameters.seed + number,
                metric="retraining_loss",
                done=number * parameters.retrain_steps,
            )
            groups = CoupledChannels.of(network.model, image_shape, is_checked=True).among(layers)
            number += 1
            left = {group.name: group.units for group in groups.groups}
            for each in record["groups"]:
                each["after"] = left.get(each["name"], 1)  # a group of one unit cannot shrink, so it is not listed
            sizes = {"parameters": groups.parameters, "flops": groups.flops}
            for name, size in sizes.items():
                record[name]["after"] = size
                network.progress.metric(name, number, size)
            record["rounds"].append({**sizes, "loss": losses[-1] if losses else None})
            wanted = {"parameters": goal.sparsity, "flops": goal.flops_reduction}
            shares = [(1 - sizes[name] / before[name]) / share for name, share in wanted.items() if share]
            network.progress.advance(max(0.0, min([1.0, *shares])))
            save_round(network, number)
            network.progress.raise_if_stopped()
        network.progress.advance(1.0)


def _dense(groups: CoupledChannels) -> dict[str, Any]:
    return {
        "parameters": {"before": groups.parameters, "after": groups.parameters},
        "flops": {"before": groups.flops, "after": groups.flops},
        "groups": [
            {"name": each.name, "kind": each.kind, "layers": list(each.writers)}
            | {"before": each.units, "after": each.units}
            for each in groups.groups
        ],
        "rounds": [],
    }


class FilterL1(FilterMethod):
    """L1 filter pruning: each filter F is scored by Σ|F| within its layer (section 3.1).

    A filter is removed together with its batch-norm channel and the kernels that read it in the next layers. In a
    residual stage the filters of the shortcut lead the group: their scores decide (section 3.3).

    Lifecycle of a round: score; divide the removal among the groups by `rates`; with `greedy`, choose again from the
    image on, without the kernels that are already removed (section 3.3); remove; retrain.
    """

    def scores(self, network: Network, groups: CoupledChannels, number: int = 0) -> list[Tensor]:
        return [self._score(groups, place, number) for place in range(len(groups.groups))]

    def _score(self, groups: CoupledChannels, place: int, number: int) -> Tensor:
        parameters: FilterL1Parameters = self._parameters
        if parameters.order == "random":
            generator = torch.Generator().manual_seed((parameters.seed * 1_000_003 + number) * 4096 + place)
            return torch.rand(groups.groups[place].units, generator=generator)
        return kernel_sums(groups, place) if parameters.order == "smallest" else -kernel_sums(groups, place)

    def choose(self, network: Network, groups: CoupledChannels, goal: Goal, number: int) -> list[Step] | None:
        """Choose by `rates`: a step's value is the rate, the loss's rise, or the scale of the listed rates."""
        parameters: FilterL1Parameters = self._parameters
        if number >= parameters.rounds:
            return None
        goal = Goal(goal.parameters, goal.flops, goal.sparsity * (number + 1) / parameters.rounds)
        scores, rates = self.scores(network, groups, number), parameters.rates
        if isinstance(rates, list):
            steps = _by_listed_rates(groups, scores, goal, rates, parameters.round_to)
        elif rates == "uniform":
            steps = steps_until(ranked(scores, parameters.round_to, lambda place, rate: (rate,)), groups, goal)
        else:
            images = draw_images(network.calibration, parameters.measured_images, parameters.seed + number)
            rises = loss_rises(network, groups, scores, images)
            ascending = ranked(scores, parameters.round_to, lambda place, rate: (rises[place](rate), rate))
            steps = steps_until(ascending, groups, goal)
        return self._greedily(groups, steps, number) if parameters.selection == "greedy" else steps

    @torch.no_grad()
    def _greedily(self, groups: CoupledChannels, steps: Sequence[Step], number: int) -> list[Step]:
        """Choose as many units of each group again; kernels that read what was already chosen become zero."""
        chosen = []
        for place, count in enumerate(counts(steps, groups)):
            units = torch.argsort(self._score(groups, place, number), stable=True)[:count]
            chosen.append(Step((), place, tuple(units.tolist())))
            for name, channels_UK in groups.groups[place].readers:
                weight = groups.model.get_parameter(f"{name}.weight")
                weight[:, (channels_UK[units] % weight.shape[1]).flatten()] = 0
        return chosen


def _by_listed_rates(
    groups: CoupledChannels, scores: Sequence[Tensor], goal: Goal, rates: Sequence[float], round_to: int
) -> list[Step]:
    """Choose by the rates in the request times a common scale; a step's value is the scale that takes it."""
    names = [group.name for group in groups.groups]
    if len(rates) != len(names):
        raise InvalidParameters(
            f"parameters.rates has {len(rates)} rates, but the model has {len(names)} groups of filters, in this "
            f"order: {', '.join(names)}",
            param="parameters.rates",
        )
    if not any(rates):
        raise InvalidParameters("parameters.rates are all 0, so nothing would be removed", param="parameters.rates")
    steps = [
        step
        for step in ranked(scores, round_to, lambda place, rate: (rate / (rates[place] or 1e-9), rate))
        if rates[step.group]
    ]
    taken = steps_until(steps, groups, goal)
    if taken and taken[-1].value[0] * max(rates) >= 1:
        possible = [step for step in steps if step.value[0] * max(rates) < 1]
        raise _empty_layer_error(groups, goal, possible, names[rates.index(max(rates))])
    return taken


@torch.no_grad()
def loss_rises(
    network: Network, groups: CoupledChannels, scores: Sequence[Tensor], images: ImageSet
) -> list[Callable[[float], float]]:
    """Measure, for each group, how the mean loss in nats rises with the share of its units that are zeroed.

    Units are zeroed in ascending order of score. The functions interpolate between measured rates and never decrease.
    The first call adds the curves to the figures.
    """
    dense, curves = mean_loss(network, images), []
    for place, (group, score_U) in enumerate(counted(list(zip(groups.groups, scores, strict=True)), "scanning groups")):
        order = torch.argsort(score_U, stable=True).tolist()
        removed = sorted({*(int(rate * group.units) for rate in _SCANNED), group.units - 1} - {0})
        losses = [dense]
        for count in removed:
            with groups.silenced({place: order[:count]}):
                losses.append(mean_loss(network, images))
        rates = [0.0, *(count / group.units for count in removed)]
        curves.append({"name": group.name, "rates": rates, "losses": losses})
        network.progress.log(f"sensitivity of {group.name}: loss {dense:.4f} to {losses[-1]:.4f}")
    network.figures.setdefault("sensitivity", curves)

    def rise(curve: dict[str, Any]) -> Callable[[float], float]:
        rises = list(accumulate((loss - dense for loss in curve["losses"]), max))
        return lambda rate: float(np.interp(rate, curve["rates"], rises))

    return [rise(curve) for curve in curves]


class FilterTaylor(FilterMethod):
    """Ranking of the filters of all layers together, by the first-order estimate of the loss without each.

    The scores of each layer are divided by their L2 norm. Then λ per million operations is subtracted (section 2.2).

    Lifecycle: each round ranks on new images, removes the lowest few filters and fine-tunes, until the goal is met
    (figure 1).
    """

    def scores(self, network: Network, groups: CoupledChannels, number: int = 0) -> Sequence[Tensor]:
        parameters = self._parameters
        images = draw_images(network.calibration, parameters.measured_images, parameters.seed + number)
        return between_layers(taylor(network, groups, images))

    def choose(self, network: Network, groups: CoupledChannels, goal: Goal, number: int) -> list[Step] | None:
        """Choose the first steps that together have at most the units of a round, and at least one step."""
        parameters: FilterTaylorParameters = self._parameters
        if goal.is_met(groups.parameters, groups.flops):
            return None
        scores = list(self.scores(network, groups, number))
        if parameters.flops_weight:  # Θ − λ·Θ_flops, in millions of operations that removing one unit saves
            for place, score_U in enumerate(scores):
                saved = groups.flops - groups.after_one(place)[1]
                scores[place] = score_U - parameters.flops_weight * saved / 1e6
        steps = steps_until(ranked(scores, parameters.round_to), groups, goal)
        units = sum(each["before"] for each in network.figures[_FIGURES]["groups"])
        at_once = parameters.filters_per_round or max(1, units // _TAYLOR_ROUNDS)
        sums = accumulate(len(step.units) for step in steps)
        return steps[: max(1, sum(1 for _ in takewhile(lambda total: total <= at_once, sums)))]
