"""Search for what goes besides channels: whole layers, or the shape within a limit of cost; trials decide."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import ceil, inf

import torch
from torch import Tensor

from core.counting import counting
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.unit_counts import CostLimit
from core.engine.cuts import WorthTable
from core.engine.datasets.counted_tokens import counted_places, number_of_places
from core.engine.datasets.token_windows import evenly_spaced
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.blocks.block_choice import hidden_states_after_trial
from core.engine.pruning.units.method import UnitMethod, UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
from core.engine.removals.layers import most_removable_layers, required_layers
from core.engine.removals.shape_program import ShapeChoice, ShapeProgram, counts_of, program_of
from core.methods.descriptions.frontier import (
    LayerDrop,
    StructuredFrontierParameters,
    find_local_minimum,
    most_trials,
)
from core.methods.frontier.output_metric import RunCosts
from secateur_wire.errors import InvalidSparsity, TargetUnreachable

_CHUNK = 256
"""Positions whose predictions are computed at a time."""
_PARTS = 4
"""Smallest number of calibration sequences for trials; also, trials are measured on one sequence in this many at most.
"""


@dataclass(frozen=True)
class ShapeToTry:
    """Counts to try, and their description for the report."""

    label: str
    counts: UnitCounts


@dataclass(frozen=True)
class Trials:
    """Trials of whole models that `method` prunes.

    The measure is the divergence between the predictions of the trial and of the dense model. `dense_ends` are the
    dense model's last outputs, [1, time, hidden_size], as far as they are known, by the number of the calibration
    sequence.
    """

    context: UnitSelectionContext
    method: UnitMethod
    drop: LayerDrop
    dense_ends: Mapping[int, Tensor]

    @property
    def are_possible(self) -> bool:
        """Return True if there is enough calibration text to fit on some and to measure on other."""
        return len(self._calibration()) >= _PARTS

    def best(self, candidates: Sequence[ShapeToTry], alike: str) -> UnitCounts:
        """Return the counts of the best model; the candidates are in the order of their numbers of dropped layers.

        All of them are `alike` in what the words say.
        """
        context = self.context
        fitted_NT, seen_NT = self._fitting_sequences(), self._calibration()[self._evaluation_numbers()]
        batches = seen_NT.split(context.micro_batch)
        dense = self._dense_outputs(seen_NT)
        tried: dict[int, float] = {}

        def tried_at(place: int) -> float:
            if place not in tried:
                count(len(tried))
                counts = candidates[place].counts
                ends = hidden_states_after_trial(context, self.method, counts, recorded, seen_NT)
                tried[place] = divergence(context.streamed, batches, dense, ends)
                context.log(f"trial, {candidates[place].label}: {tried[place]:.4f} nats")
            return tried[place]

        context.begin_trials()
        with (
            context.stream("recorded", fitted_NT, keeps_all=True) as recorded,
            counting("trials of whole layers, at most", most_trials(len(candidates))) as count,
        ):
            recorded.pass_blocks("passing blocks forward")
            best = candidates[find_local_minimum(len(candidates), tried_at)]
        figures = "; ".join(f"{candidates[place].label}: {tried[place]:.4f}" for place in sorted(tried))
        note = (
            f"Whole layers against channels, by trials of models of {alike}, pruned on "
            f"{fitted_NT.numel():,} calibration tokens: divergence from the dense model's predictions on "
            f"{seen_NT.numel():,} others, in nats a token: {figures}. Taken: {best.label}."
        )
        return best.counts.model_copy(update={"notes": [*best.counts.notes, note]})

    def _dense_outputs(self, seen_NT: Tensor) -> Sequence[Tensor]:
        """Return the dense model's last outputs for the batches of the sequences that trials are measured on."""
        context, numbers = self.context, self._evaluation_numbers()
        if self.dense_ends.keys() >= {*numbers}:
            ends = iter(self.dense_ends[number] for number in numbers)
            batches = seen_NT.split(context.micro_batch)
            return [context.streamed.one_batch([*islice(ends, len(each))]) for each in batches]
        with context.stream("seen", seen_NT) as stream:
            stream.pass_blocks("passing blocks forward")
            return [hidden for _, hidden in stream.batches()]

    def _evaluation_numbers(self) -> list[int]:
        """Return the numbers of the sequences that trials are measured on: evenly spaced, at most a quarter of all."""
        sequences, length = self._calibration().shape
        return evenly_spaced(sequences, min(max(1, self.drop.seen // length), sequences // _PARTS))

    def _fitting_sequences(self) -> Tensor:
        """Return the sequences that trials are fitted on: evenly spaced among those that trials are not measured on."""
        calibration_NT, evaluation = self._calibration(), {*self._evaluation_numbers()}
        rest = [number for number in range(len(calibration_NT)) if number not in evaluation]
        most = max(1, self.drop.fitted_tokens(calibration_NT.numel()) // calibration_NT.shape[1])
        return calibration_NT[[rest[each] for each in evenly_spaced(len(rest), most)]]

    def _calibration(self) -> Tensor:
        assert self.context.calibration is not None
        return self.context.calibration


def label_without(dropped: Sequence[int]) -> str:
    """Return the description of a model without these layers."""
    return f"without layer{'s' if len(dropped) > 1 else ''} {', '.join(map(str, dropped))}" if dropped else "all layers"


@torch.inference_mode()
def divergence(
    streamed: StreamedModel, tokens: Sequence[Tensor], dense: Sequence[Tensor], other: Sequence[Tensor]
) -> float:
    """Return the mean of KL(dense‖other) over predictions, in nats; the other model has the dense one's norm and head.

    The inputs are batches of tokens [batch, time], and each model's last-block outputs for them [batch, time,
    hidden_size]. Predictions of tokens that do not count are left out. They are computed for one window and a few
    positions at a time, and compared one by one: so their distributions stay in a processor's cache.
    """
    total = torch.zeros((), dtype=torch.float64, device=streamed.device)
    for tokens_BT, *both in zip(tokens, dense, other, strict=True):
        for window, tokens_1T in enumerate(tokens_BT.split(1)):
            states = [streamed.sequences_of(each, window, 1).to(streamed.dtype) for each in both]
            places_T, all_T = counted_places(tokens_1T), torch.arange(tokens_BT.shape[1])
            for positions in (all_T if places_T is None else all_T[places_T]).split(_CHUNK):
                logits = [streamed.logits(tokens_1T, each, positions)[0].float() for each in states]
                for wanted_PV, other_PV in zip(*(each.split(1) for each in logits), strict=True):
                    total += torch.nn.functional.kl_div(
                        other_PV.log_softmax(dim=-1), wanted_PV.log_softmax(dim=-1), reduction="sum", log_target=True
                    )
    return float(total) / sum(map(number_of_places, tokens))


CountsWithout = Callable[[Sequence[int]], UnitCounts]
"""Function from the dropped layers to the counts of the other layers, so that the model reaches its sparsity."""


@dataclass(frozen=True)
class LayerSearch:
    """Search for the layers to drop; `protected` layers stay.

    Numbers of dropped layers are compared by `trials`: whole pruned models with equal numbers of parameters.
    """

    trials: Trials
    protected: frozenset[int]
    counts_without: CountsWithout
    runs: RunCosts

    def cheapest_layers(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return, for each number, that many layers whose runs cost least.

        The other layers are fitted to the dense hidden states after a dropped run. So the cost of a run does not depend
        on the runs before it.
        """
        context = self.trials.context
        excluded = self.protected | staying_layers(context.folder.description, self.runs)
        return [least_costly(context.layers, number, excluded, self.runs.cost) for number in numbers]

    def best(self, numbers: Sequence[int]) -> UnitCounts:
        """Return the counts of the best model; each of `numbers` is one number of dropped layers to try."""
        most = self.trials.context.layers - len(self.protected) - 1
        numbers = [each for each in numbers if each <= most]
        if len(numbers) == 1 or not self.trials.are_possible:
            return self.counts_without([])
        candidates = []
        for dropped in self.cheapest_layers(numbers):
            with suppress(InvalidSparsity):
                candidates.append(ShapeToTry(label_without(dropped), self.counts_without(dropped)))
        return self.trials.best(candidates, "as many parameters")


def staying_layers(description: ModelDescription, runs: RunCosts) -> frozenset[int]:
    """Return the layers without which the model cannot run: of each required kind the one that costs most to drop."""
    required = required_layers(description)
    return frozenset(max(each, key=lambda layer: runs.cost(layer, layer + 1)) for each in required)


def least_costly(layers: int, number: int, excluded: Collection[int], cost: Callable[[int, int], float]) -> list[int]:
    """Return the `number` of `layers` that cost least to drop, ascending, without any of `excluded`.

    Fewer layers are returned where fewer can go. `cost(first, end)` is the cost of the run of layers `first` to `end` −
    1. The sum of the costs of all runs is minimal. Dynamic programming finds it: for the first n layers and every
    number of dropped layers, the best sum is computed from the best sums for fewer layers.
    """
    number = min(number, layers - len(set(excluded)))
    nothing: tuple[int, ...] = ()
    # best[n][k]: least cost of dropping k of the first n layers, and these layers
    best = [[(0.0, nothing)] + [(inf, nothing)] * number]
    for end in range(1, layers + 1):
        row = list(best[end - 1])
        for first in range(end - 1, max(end - number, 0) - 1, -1):
            if first in excluded:
                break
            added = cost(first, end)
            before = best[max(first - 1, 0)]  # the layer before the run stays
            for count in range(end - first, number + 1):
                lost_cost, removed = before[count - (end - first)]
                if lost_cost + added < row[count][0]:
                    row[count] = (lost_cost + added, (*removed, *range(first, end)))
        best.append(row)
    return list(best[layers][number][1])


@dataclass(frozen=True)
class CostSearch:
    """Search among the variants of a table, by their worth and their costs.

    What a long run of layers is worth to second order is far below what it costs, so no sum with runs of other lengths,
    or with channels, is comparable. The program finds the best shape for each of several numbers of dropped layers, and
    `trials` compare these.
    """

    table: WorthTable
    costs: CostLimit
    parameters: StructuredFrontierParameters
    trials: Trials

    def best(self) -> UnitCounts:
        """Return the counts of the best shape; raises TargetUnreachable, naming the nearest, where there is none."""
        requested = self.parameters.drop_layers
        numbers = [requested] if requested != "auto" else self._numbers() if self.trials.are_possible else [0]
        shapes = [each for each in map(self._solve, numbers) if each is not None]
        if not shapes and requested == "auto":  # channels alone, or with so few layers, do not reach it
            more = map(self._solve, range(1, self._most + 1))
            shapes = [each for each in more if each is not None][:1]
        if not shapes:
            raise self._unreachable(None if requested == "auto" else requested)
        candidates = [self._candidate(each) for each in shapes]
        return candidates[0].counts if len(candidates) == 1 else self.trials.best(candidates, "the same cost")

    @property
    def _most(self) -> int:
        """Largest number of layers that can go."""
        return most_removable_layers(self.trials.context.folder.description) if self.table.runs else 0

    def _solve(self, dropped: int) -> ShapeChoice | None:
        return self._program.best(self.costs.limit, dropped=dropped, uniform=self._is_uniform)

    def _unreachable(self, dropped: int | None) -> TargetUnreachable:
        costs, name = self.costs, f"target.{self.costs.target}"
        nearest = self._program.cheapest(dropped=dropped, uniform=self._is_uniform)
        refusal = f"{name} {costs.figure(costs.limit)} cannot be reached"
        if nearest is None:
            return TargetUnreachable(f"{refusal}: {dropped} layers cannot go from this model", param=name)
        return TargetUnreachable(
            f"{refusal}: the nearest is {costs.figure(nearest.cost)}, by {costs.basis}", param=name
        )

    def _numbers(self) -> list[int]:
        """Return the numbers of dropped layers to try: shares of those that reach the limit by themselves."""
        layers, costs, drop = self.table.layers, self.costs, self.trials.drop
        dense = [costs.of_layer(variants[0].units) for variants in layers]
        going = costs.fixed + sum(dense) - costs.limit
        if not self._most or going < drop.from_share * sum(dense):
            return [0]
        alone = ceil(going * len(layers) / sum(dense))
        return [0, *sorted({min(max(1, round(share * alone)), self._most) for share in drop.shares})]

    @cached_property
    def _program(self) -> ShapeProgram:
        return program_of(self.table, self.costs)

    @property
    def _is_uniform(self) -> bool:
        return self.trials.context.layout == "uniform"

    def _candidate(self, choice: ShapeChoice) -> ShapeToTry:
        context, costs = self.trials.context, self.costs
        note = (
            f"The shape that loses least within target.{costs.target} {costs.figure(costs.limit)}, by {costs.basis}: "
            f"{costs.figure(choice.cost)}, {label_without(choice.dropped)}, expected to lose {choice.worth:.4f} nats a "
            "token before the fit."
        )
        counts = counts_of(context.structure, context.kinds, self.table, choice)
        return ShapeToTry(label_without(choice.dropped), UnitCounts(layers=counts, notes=[note], worth=self.table))
