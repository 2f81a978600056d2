"""Frontier for a smaller model: Optimal Brain Surgeon chooses the channels, then the remaining weights are fitted."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from core.engine.architectures.unit_counts import CostLimit, LayerCounts, WidthReduction
from core.engine.architectures.units import KindName
from core.engine.pruning.streams.propagation import InputGroup, input_groups
from core.engine.pruning.units.method import (
    BlockToPrune,
    PrunedBlock,
    PrunedTokens,
    TokensAtBlock,
    UnitMethod,
    UnitSelectionContext,
)
from core.engine.pruning.units.ranking import threshold_counts
from core.engine.pruning.units.removal import (
    UnitCounts,
    UnitSet,
    require_finite,
)
from core.engine.pruning.units.unit_slices import StackSlice
from core.engine.removals.shape_program import worth_table
from core.engine.removals.widths import reduction_of_remaining_layers
from core.methods.descriptions.frontier import LAYER_DROP, StructuredFrontierParameters
from core.methods.frontier.fit import BlockFit, ExpertsFit
from core.methods.frontier.output_metric import OutputCosts, measure_outputs
from core.methods.frontier.search import CostSearch, LayerSearch, Trials, staying_layers


class StructuredFrontier(UnitMethod):
    """Removal of units and a fit of the remaining weights; a layer W reads X in the pruned model and has the target Y.

    The target Y of most layers is the output of the dense layer. A layer that is the last to add to the residual stream
    before dropped layers has another target: the dense stream after those layers.

    G = XᵀX, C = α·YᵀX + (1 − α)·WG, H = G + λI. A layer that keeps its inputs becomes W + (C − WG)(G + ρI)⁻¹. For a
    layer that loses inputs, W* = W + (C − WG)H⁻¹ is the best fit with all inputs. Optimal Brain Surgeon removes inputs
    from W*, by a metric of the outputs. The remaining columns V, with their own G and C, become V + (C − VG)(G + ρI)⁻¹.
    For experts α is 1.
    """

    weight_reads = 2
    reads = "pruned"

    def __init__(self, parameters: StructuredFrontierParameters) -> None:
        self.parameters = parameters
        if parameters.drop_layers != 0:
            self.weight_reads += LAYER_DROP[parameters.budget].weight_reads

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        parameters, width_reduction = self.parameters, context.width_reduction
        assert width_reduction is not None
        if width_reduction.costs is not None:
            return self._within(context, width_reduction, width_reduction.costs)
        numbers = parameters.layer_numbers(context.folder.description, context.sparsity)
        costs = None
        if parameters.metric or width_reduction.ranking is not None or any(numbers):
            costs = measure_outputs(context, parameters.seed, drops_layers=any(numbers))
            require_finite(dict(enumerate(costs.units)))

        def counts_without(dropped: Sequence[int]) -> UnitCounts:
            widths = parameters.model_copy(update={"drop_layers": 0})
            return _counts_without(context, widths, None if costs is None else costs.units, dropped)

        if costs is None or costs.runs is None:
            return counts_without(())
        trials = self._trials(context, costs)
        search = LayerSearch(trials, width_reduction.protected, counts_without, costs.runs)
        if parameters.drop_layers == "auto":
            return search.best(numbers)
        (dropped,) = search.cheapest_layers(numbers)
        return counts_without(dropped)

    def _trials(self, context: UnitSelectionContext, costs: OutputCosts) -> Trials:
        return Trials(context, _Trial(self.parameters, costs.units), LAYER_DROP[self.parameters.budget], costs.ends)

    def _within(self, context: UnitSelectionContext, width_reduction: WidthReduction, costs: CostLimit) -> UnitCounts:
        """Return the counts that lose least within a limit of cost."""
        parameters, description = self.parameters, context.folder.description
        may_drop = parameters.drop_layers != 0 and "layers" not in description.known_as.refused
        measured = measure_outputs(context, parameters.seed, drops_layers=may_drop)
        require_finite(dict(enumerate(measured.units)))
        runs, protected = measured.runs, width_reduction.protected
        table = worth_table(
            context.structure,
            context.kinds,
            measured.units,
            None if runs is None else runs.cost,
            offered=costs.units,
            protected=protected,
            staying=protected if runs is None else protected | staying_layers(description, runs),
        )
        return CostSearch(table, costs, parameters, self._trials(context, measured)).best()

    def prune_block(self, block: BlockToPrune, dense: TokensAtBlock | None, pruned: PrunedTokens | None) -> PrunedBlock:
        assert pruned is not None
        losing = {each.linear: each for each in block.unit_sets if block.counts.units[each.kind] < each.units}
        of_experts = next((each for each in block.unit_sets if isinstance(each.reading_slice, StackSlice)), None)
        if of_experts is not None:
            return self._prune_experts(block, of_experts, pruned)
        groups = input_groups(block.family.inputs, {name.removesuffix(".weight") for name in block.tensors})
        if pruned.are_dense():  # the blocks before changed nothing that has to be compensated
            fitted = {*losing, block.last_before_gap}
            first = (place for place, group in enumerate(groups) if not fitted.isdisjoint(group.linears))
            groups = groups[next(first, len(groups)) :]
        return self._fit(groups, BlockFit(self.parameters, block, losing), pruned)

    @staticmethod
    def _fit(groups: Sequence[InputGroup], fit: BlockFit, pruned: PrunedTokens) -> PrunedBlock:
        if not groups:
            return PrunedBlock({})
        pruned.fit(groups, fit)
        return PrunedBlock(fit.units, fit.changed_without_outputs(), fit.costs, fit.notes)

    def _prune_experts(self, block: BlockToPrune, unit_set: UnitSet, pruned: PrunedTokens) -> PrunedBlock:
        """Prune a block with experts; each expert is a layer that reads the tokens routed to it.

        Before the experts, a layer that loses heads is fitted. A shared expert loses the channels of least cost without
        a fit; the experts compensate for it.
        """
        experts = block.family.experts
        assert experts is not None
        losing = {
            each.linear: each
            for each in block.unit_sets
            if each is not unit_set and block.counts.units[each.kind] < each.units
        }
        keep = block.counts.units[unit_set.kind]
        if keep * unit_set.sets == unit_set.units and not losing and pruned.are_dense():
            return PrunedBlock({})
        heads = BlockFit(self.parameters, block, losing)
        before = {
            f"{name}.weight": weight
            for linear in losing
            for name, weight in heads(InputGroup((linear,)), pruned.reading(linear)).items()
        }
        fit = ExpertsFit(self.parameters, block, unit_set, experts)
        if unit_set.linear_output is not None:
            before |= fit.choose_linear(pruned)
        pruned.fit_experts(before, fit)
        return fit.result().joined_with(PrunedBlock(heads.units, heads.changed, heads.costs, heads.notes))


class _Trial(StructuredFrontier):
    """Removal as trials of whole layers do it, with few tokens and little work.

    The units that cost least go, by `costs` before anything is removed; only layers that lose inputs, and the last one
    before a gap, are fitted. Optimal Brain Surgeon would fit the few tokens too closely, and cost more than the
    forwards. Experts are pruned as in the pass.
    """

    def __init__(self, parameters: StructuredFrontierParameters, costs: Sequence[Mapping[KindName, Tensor]]) -> None:
        super().__init__(parameters)
        self._costs = costs

    def prune_block(self, block: BlockToPrune, dense: TokensAtBlock | None, pruned: PrunedTokens | None) -> PrunedBlock:
        assert pruned is not None
        if any(isinstance(each.reading_slice, StackSlice) for each in block.unit_sets):
            return super().prune_block(block, dense, pruned)
        kept = block.keep_highest(self._costs[block.layer])
        losing = {each.linear: each for each in block.unit_sets if each.kind in kept}
        groups = input_groups(block.family.inputs, {*losing, *filter(None, [block.last_before_gap])})
        return self._fit(groups, BlockFit(self.parameters, block, losing, kept), pruned)


def _counts_without(
    context: UnitSelectionContext,
    parameters: StructuredFrontierParameters,
    costs: Sequence[Mapping[KindName, Tensor]] | None,
    dropped: Sequence[int],
) -> UnitCounts:
    """Return the counts that reach the sparsity together with the layers `dropped`.

    Raises InvalidSparsity where there are none.
    """
    structure, width_reduction = context.structure, context.width_reduction
    assert width_reduction is not None
    left = [layer for layer in range(context.layers) if layer not in dropped]
    if dropped:
        width_reduction = reduction_of_remaining_layers(
            context.folder.description,
            parameters,
            context.sparsity,
            left,
            layout=context.layout,
            round_to=width_reduction.round_to,
            at_least=context.at_least,
        )
    counts = width_reduction.counts
    if width_reduction.ranking is not None:
        assert costs is not None
        per_parameter = [
            {
                kind.name: costs[layer][kind.name] / kind.parameters(structure, layer)
                for kind in context.kinds
                if kind.units(structure.layers[layer])
            }
            for layer in left
        ]
        rest = structure.of_layers(left)
        counts = threshold_counts(rest, per_parameter, context.kinds, width_reduction.ranking)
    assert counts is not None
    layers = {}
    for layer, each in zip(left, counts, strict=True):
        # With dropped layers it can be that no head has to go. The counts then leave heads out.
        units = {**LayerCounts.of_all(structure.layers[layer], context.kinds).units, **each.units}
        layers[layer] = LayerCounts.of(structure, layer, context.kinds, units)
    return UnitCounts(layers=layers)
