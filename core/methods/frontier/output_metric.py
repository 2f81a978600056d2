"""Worth of a layer's outputs to the loss, and of the units it reads, from gradients of a few sequences."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.unit_kind import KindName
from core.engine.models.hooks import removed_after
from core.engine.models.tensors import to_out_in
from core.engine.pruning.layerwise.block_gradients import backward_blocks
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import UnitSet
from core.methods.frontier.structured_info import MEASURED_SEQUENCES


class _Watch:
    """A layer that reads what units give: sums over forwards and backwards, of gradients g of its output.

    `metric_OO` is Σ ggᵀ, `costs_U` is Σ (g·W_u z_u)² for the part W_u z_u of the output that is a unit's.
    """

    def __init__(self, unit_set: UnitSet, module: nn.Module, family: Architecture) -> None:
        self.unit_set = unit_set
        self.module = module
        self.family = family
        self.metric_OO: Tensor | None = None
        self.costs_U: Tensor | None = None

    def hook(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        """Accumulate once the output's gradient arrives; a forward hook, idle in forwards without gradients."""
        if not output.requires_grad:
            return
        inputs_NI = arguments[0].detach().flatten(0, -2).float()
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        weight_OI = to_out_in(weight.detach().float(), self.family)

        def see(gradient: Tensor) -> None:
            gradient_NO = gradient.flatten(0, -2).float()
            parts_NI = (gradient_NO @ weight_OI).mul_(inputs_NI)
            costs_U = parts_NI.unflatten(1, (self.unit_set.units, -1)).sum(dim=2).square().sum(dim=0)
            metric_OO = gradient_NO.T @ gradient_NO
            self.costs_U = costs_U if self.costs_U is None else self.costs_U + costs_U
            self.metric_OO = metric_OO if self.metric_OO is None else self.metric_OO + metric_OO

        output.register_hook(see)


def measure_outputs(context: UnitSelectionContext, seed: int) -> list[dict[KindName, Tensor]]:
    """Write the metric of the layers that read units, and return what each unit costs, of every layer, by kind.

    The metric E[ggᵀ] over tokens, g the gradient in an output of the summed loss of tokens that the model draws, is
    written as a block's planned tensor by the layer's name: an error e of the output costs ½·E[(g·e)²] nats a token.
    All blocks run forward and backward, one after the other.
    """
    assert context.calibration is not None
    streamed, family = context.streamed, context.folder.family
    step = max(1, len(context.calibration) // MEASURED_SEQUENCES)
    tokens_NT = context.calibration[::step][:MEASURED_SEQUENCES]
    scale = (tokens_NT.shape[1] - 1) / len(tokens_NT)  # gradients are those of the mean over so many predictions
    watches = [
        [
            _Watch(unit_set, streamed.blocks[layer].get_submodule(unit_set.linear), family)
            for unit_set in context.unit_sets(layer)
        ]
        for layer in range(context.layers)
    ]
    costs: list[dict[KindName, Tensor]] = [{} for _ in watches]

    def on_block(index: int, *unused: Mapping[str, Tensor]) -> None:
        metrics = {}
        for watch in watches[index]:
            assert watch.costs_U is not None and watch.metric_OO is not None
            costs[index][watch.unit_set.kind] = watch.costs_U.double().cpu() * scale / 2
            metrics[watch.unit_set.linear] = watch.metric_OO * scale
            watch.costs_U = watch.metric_OO = None
        context.planned.write(index, metrics)

    with removed_after(watch.module.register_forward_hook(watch.hook) for each in watches for watch in each):
        backward_blocks(
            streamed,
            tokens_NT,
            context.forward_dtype,
            [()] * context.layers,
            on_block,
            squares=False,
            cache=context.hidden_state_cache(),
            drawn=torch.Generator().manual_seed(seed),
        )
    return costs
