"""Search for the shape that loses least within a limit of cost, and trials of its best numbers of dropped layers."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from core.engine.architectures.unit_counts import CostLimit
from core.engine.cuts.worth import WorthTable
from core.engine.pruning.units.removal import UnitCounts
from core.engine.removals.layers.counts import most_removable_layers
from core.engine.removals.widths.shape_program import ShapeChoice, ShapeProgram
from core.engine.removals.widths.worth import counts_of, program_of
from core.methods.descriptions.frontier import StructuredFrontierParameters
from core.methods.frontier.trials import ShapeToTry, Trials, label_without
from secateur_wire.errors import TargetUnreachable


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
