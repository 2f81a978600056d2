"""Metric of a layer's outputs, costs of the units it reads and of runs of layers, from gradients on a few sequences."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.units import KindName
from core.engine.datasets.counted_tokens import mean_predictions
from core.engine.datasets.token_windows import evenly_spaced
from core.engine.models.experts import ExpertStacks, RoutedTokens
from core.engine.models.hooks import removed_after
from core.engine.models.tensors import to_out_in
from core.engine.pruning.streams.block_gradients import backward_blocks
from core.engine.pruning.units.method import UnitSelectionContext
from core.engine.pruning.units.unit_slices import SetSlice, StackSlice, UnitSlice
from core.methods.descriptions.frontier import STREAM_TOKENS, measured_sequences


class _Watch:
    """Sums over the gradients g of one layer's output; the layer reads units.

    `metric_OO` is Σ ggᵀ. `costs_U` is Σ (g·W_u z_u)², where W_u z_u is the part of the output that comes from unit u.
    For experts, z_u is multiplied by the gates of the tokens routed to them.
    """

    def __init__(self, unit_slice: UnitSlice, block: nn.Module, family: Architecture) -> None:
        self.unit_slice = unit_slice
        self.block = block
        self.family = family
        self.metric_OO: Tensor | None = None
        self.costs_U: Tensor | None = None

    def register(self) -> RemovableHandle:
        """Register a forward hook at the layer: a linear layer, or the module of the experts."""
        if isinstance(self.unit_slice, StackSlice):
            assert self.family.experts is not None
            experts = self.block.get_submodule(self.family.experts.module)
            return experts.register_forward_hook(self._at_experts, with_kwargs=True)
        return self.block.get_submodule(self.unit_slice.linear).register_forward_hook(self._at_linear)

    def _at_linear(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        """Accumulate when the output's gradient arrives; a forward hook, idle in a forward without gradients."""
        if not output.requires_grad:
            return
        inputs_NI = arguments[0].detach().flatten(0, -2).float()
        weight = module.weight
        assert isinstance(weight, Tensor)
        weight_OI = to_out_in(weight.detach().float(), self.family)

        def see(gradient: Tensor) -> None:
            gradient_NO = gradient.flatten(0, -2).float()
            parts_NI = (gradient_NO @ weight_OI).mul_(inputs_NI)
            own_U = parts_NI.unflatten(1, (self.unit_slice.units, -1)).sum(dim=2).square().sum(dim=0)
            self._add(self.unit_slice.among_all(own_U) if isinstance(self.unit_slice, SetSlice) else own_U, gradient_NO)

        output.register_hook(see)

    def _at_experts(
        self, module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object], output: Tensor
    ) -> None:
        """Accumulate like `_at_linear`, one expert after the other."""
        tokens, experts, unit_slice = RoutedTokens.of(arguments, keywords), self.family.experts, self.unit_slice
        assert tokens is not None and experts is not None and isinstance(unit_slice, StackSlice)
        if not output.requires_grad:
            return

        def see(gradient: Tensor) -> None:
            gradient_NO, stacks = gradient.flatten(0, -2).float(), ExpertStacks(self.block, experts)
            own = []
            with torch.no_grad():
                for expert in range(len(stacks)):
                    rows_N, inner_NI = tokens.gated_inner(stacks, expert)
                    weight_OI = stacks.matrix_OI(experts.giving, expert).float()
                    own.append((gradient_NO[rows_N] @ weight_OI).mul_(inner_NI).square().sum(dim=0))
                self._add(unit_slice.among_all(torch.cat(own)), gradient_NO)

        output.register_hook(see)

    def _add(self, costs_U: Tensor, gradient_NO: Tensor) -> None:
        metric_OO = gradient_NO.T @ gradient_NO
        self.costs_U = costs_U if self.costs_U is None else self.costs_U + costs_U
        self.metric_OO = metric_OO if self.metric_OO is None else self.metric_OO + metric_OO


class RunCosts:
    """Costs of runs of layers, in nats per token: ½·E[(g_e·(x_e − x_s))²] for the layers s to e − 1.

    x_l is the residual stream before layer l, and x_L the stream after the last layer. g_l is the gradient, in x_l, of
    the loss on tokens drawn from the model itself. Without the run, x_s takes the place of x_e, and the loss rises by
    this cost to second order. Main memory holds one gradient per sampled token and layer.
    """

    def __init__(self, layers: int, tokens_NT: Tensor) -> None:
        sequences, length = tokens_NT.shape
        self._stride = max(1, ceil(tokens_NT.numel() / STREAM_TOKENS))  # evenly spaced among all
        # The loss is a mean over the predictions of a sequence, and the sampled tokens represent all tokens.
        self._scale = mean_predictions(tokens_NT) / sequences * length / len(range(0, length, self._stride)) / 2
        self._behind: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in tokens_NT]
        self._sums = torch.zeros(layers, layers + 1, dtype=torch.float64)

    def see(self, place: int, sequence: int, hidden_1TD: Tensor, gradient_1TD: Tensor) -> None:
        """Accumulate x_l and g_l of a sequence, l = `place`; places arrive in descending order, as in `OnStream`."""
        stream_ND, gradient_ND = (
            each.flatten(0, -2)[:: self._stride].float().cpu() for each in (hidden_1TD, gradient_1TD)
        )
        for end, of_end_ND, product_N in self._behind[sequence]:
            missing_N = product_N - (of_end_ND * stream_ND).sum(dim=-1)  # g_e·(x_e − x_s)
            self._sums[place, end] += missing_N.double().square().sum()
        if place:
            self._behind[sequence].append((place, gradient_ND, (gradient_ND * stream_ND).sum(dim=-1)))
        else:  # the first layer is the last to arrive: the sequence is complete
            self._behind[sequence].clear()

    def cost(self, first: int, end: int) -> float:
        """Return the cost of dropping the layers `first` to `end` − 1."""
        return float(self._sums[first, end]) * self._scale


@dataclass(frozen=True)
class OutputCosts:
    """Costs of the units of every layer, by kind, and the costs of runs of layers where layers may be dropped.

    `ends` are the last block's outputs, [1, time, hidden_size], by the number of the calibration sequence.
    """

    units: list[dict[KindName, Tensor]]
    runs: RunCosts | None
    ends: dict[int, Tensor]


def measure_outputs(context: UnitSelectionContext, seed: int, *, drops_layers: bool) -> OutputCosts:
    """Write the metric of the layers that read units; return the costs of units and of runs of layers.

    Costs of runs are None unless `drops_layers`. The metric is E[ggᵀ] over tokens; g is the gradient, in a layer's
    output, of the summed loss of tokens drawn from the model itself. It is written as a planned tensor of the block
    under the weight's name. An error e of the output then costs ½·E[(g·e)²] nats per token. All blocks run forward and
    backward, one after the other.
    """
    assert context.calibration is not None
    streamed, family = context.streamed, context.folder.family
    sequences, length = context.calibration.shape
    places = evenly_spaced(sequences, measured_sequences(length))
    tokens_NT = context.calibration[places]
    # The loss is a mean over the predictions of a sequence; the metric is for their sum.
    scale = mean_predictions(tokens_NT) / len(tokens_NT)
    watches = [
        {
            unit_set.kind: [_Watch(each, streamed.blocks[layer], family) for each in unit_set.reading_slices]
            for unit_set in context.unit_sets(layer)
        }
        for layer in range(context.layers)
    ]
    costs: list[dict[KindName, Tensor]] = [{} for _ in watches]

    def on_block(index: int, *unused: Mapping[str, Tensor]) -> None:
        metrics = {}
        for kind, of_kind in watches[index].items():
            summed = []
            for watch in of_kind:
                assert watch.costs_U is not None and watch.metric_OO is not None
                summed.append(watch.costs_U.double().cpu())
                metrics[watch.unit_slice.name] = watch.metric_OO * scale
                watch.costs_U = watch.metric_OO = None
            costs[index][kind] = torch.stack(summed).sum(dim=0) * scale / 2
        context.planned.write(index, metrics)

    runs = RunCosts(context.layers, tokens_NT) if drops_layers else None
    ends: dict[int, Tensor] = {}

    def on_stream(place: int, sequence: int, hidden_1TD: Tensor, gradient_1TD: Tensor) -> None:
        if place == context.layers:
            ends[places[sequence]] = hidden_1TD
        if runs is not None:
            runs.see(place, sequence, hidden_1TD, gradient_1TD)

    with (
        context.stream("gradients", tokens_NT, micro_batch=1, keeps_all=True) as stream,
        removed_after(watch.register() for each in watches for of_kind in each.values() for watch in of_kind),
    ):
        backward_blocks(
            stream,
            [()] * context.layers,
            on_block,
            drawn=torch.Generator().manual_seed(seed),
            on_stream=on_stream,
        )
    return OutputCosts(costs, runs, ends)
