"""Model with LoRA adapters on all linear layers and masks over its removable units, for LoRAPrune and LoRAShear.

LoRAPrune is Zhang 2023 (arXiv:2305.18403), LoRAShear Chen 2023 (arXiv:2310.18356).

Both methods train the adapters on the calibration tokens, and score units by them. The model's own weights are frozen
and never get a gradient.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.architectures.units import KindName
from core.engine.models.loading import load_model
from core.engine.pruning.units.method import (
    BlockToPrune,
    PrunedBlock,
    PrunedTokens,
    TokensAtBlock,
    UnitMethod,
    UnitSelectionContext,
)
from core.engine.pruning.units.removal import KeptUnits, UnitCounts, UnitSet, kept_mask, remove_units
from core.engine.pruning.units.unit_slices import UnitSlice
from core.engine.recovery.adapters import ADAPTER, MaskedLoraLinear, add_adapters, merge_adapters
from core.engine.recovery.losses import next_token_loss
from core.engine.recovery.precision import checkpoint_activations, training_precision
from core.engine.recovery.request import Recovery
from core.engine.recovery.training import StepRule, Training
from core.engine.removals.widths import AdapterOptions
from core.progress import Progress

UnitScores = Sequence[Mapping[KindName, Tensor]]
"""Score of each unit of each decoder layer, by kind: [units], float32, on the CPU."""


class AdapterModel:
    """Model to be pruned, with adapters; its own weights are in `dtype`.

    `unit_sets` are the removable units of each decoder layer; all are kept until they are masked. `steps` is the number
    of training steps.
    """

    def __init__(self, context: UnitSelectionContext, recovery: Recovery) -> None:
        assert recovery.lora is not None
        self.steps = recovery.steps
        self._context = context
        self._recovery = recovery
        self._family = context.folder.family
        self._device = context.streamed.device
        self.unit_sets = [context.unit_sets(layer) for layer in range(context.layers)]
        self._accelerator, self.dtype = training_precision(context.streamed.dtype, self._device)
        torch.manual_seed(recovery.seed)
        model = load_model(context.folder, self._device, dtype=self.dtype)
        checkpoint_activations(model)
        linears = [each.name for each in context.folder.description.linears]
        self.module = add_adapters(model, recovery.lora, linears, transposed=self._family.transposed)
        self.module.eval()
        self.blocks: Sequence[nn.Module] = list(model.get_submodule(self._family.blocks).children())
        self._kept: dict[tuple[int, KindName], Tensor] = {}
        for layer, unit_sets in enumerate(self.unit_sets):
            for each in unit_sets:
                self._mask_reader(layer, each)

    def _mask_reader(self, layer: int, unit_set: UnitSet) -> None:
        """Register a hook so that the linear layer that reads these units' features reads zeros from masked ones."""
        unit_slice = unit_set.reading_slice

        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Any, ...] | None:
            kept_U = self._kept.get((layer, unit_set.kind))
            if kept_U is None:
                return None
            mask_F = unit_slice.spread(kept_U.to(given[0]), unowned=1.0)
            return (given[0] * mask_F, *given[1:])

        self.blocks[layer].get_submodule(unit_slice.linear).register_forward_pre_hook(hook)

    def keep(self, layer: int, kind: KindName, kept_U: Tensor) -> None:
        """Mask all units of a kind but those where `kept_U` [units] is True."""
        self._kept[layer, kind] = kept_U.to(self._device)

    def drop(self, layer: int, kind: KindName, removed_U: Tensor) -> None:
        """Mask more units of a kind: those where `removed_U` [units] is True."""
        stays_U = ~removed_U.to(self._device)
        kept_U = self._kept.get((layer, kind))
        self.keep(layer, kind, stays_U if kept_U is None else kept_U & stays_U)

    def keep_only(self, kept: KeptUnits) -> None:
        """Mask all units that are not kept."""
        for layer, unit_sets in enumerate(self.unit_sets):
            for each in unit_sets:
                self.keep(layer, each.kind, kept_mask(kept.layers[layer].get(each.kind), each.units))

    def linears(self) -> Iterator[MaskedLoraLinear]:
        """Return an iterator over the linear layers that have adapters."""
        return (each for each in self.module.modules() if isinstance(each, MaskedLoraLinear))

    def weight(self, layer: int, unit_slice: UnitSlice) -> nn.Parameter | None:
        """Return the model's own tensor of a slice, without the adapters' update; None where there is none."""
        name, _, kind = unit_slice.name.rpartition(".")
        module = self.blocks[layer].get_submodule(name)
        owner = module.get_base_layer() if isinstance(module, MaskedLoraLinear) else module
        parameter = getattr(owner, kind, None)
        return parameter if isinstance(parameter, nn.Parameter) else None

    def linear(self, layer: int, unit_slice: UnitSlice) -> MaskedLoraLinear | None:
        """Return the adapted linear layer of a slice's weight; None for biases and norms."""
        name, _, kind = unit_slice.name.rpartition(".")
        module = self.blocks[layer].get_submodule(name)
        return module if kind == "weight" and isinstance(module, MaskedLoraLinear) else None

    @torch.no_grad()
    def unit_sums(self, figure: Callable[[MaskedLoraLinear], Tensor], *, normalised: bool) -> UnitScores:
        """Return a score of every weight of every adapted linear layer, summed over each unit.

        `figure` computes the scores of one layer's weights, in the weight's layout. With `normalised`, the sums from
        one linear layer have Euclidean norm 1 over all units, so that no module outweighs others.
        """

        def sums(layer: int, unit_set: UnitSet) -> Iterator[Tensor]:
            for unit_slice in unit_set.slices:
                linear = self.linear(layer, unit_slice)
                if linear is not None:
                    sums_U = unit_slice.per_unit(unit_slice.per_feature(figure(linear)))
                    tiny = torch.finfo(sums_U.dtype).tiny
                    yield sums_U / sums_U.norm().clamp(min=tiny) if normalised else sums_U

        return [
            {each.kind: torch.stack([*sums(layer, each)]).sum(0).cpu() for each in unit_sets}
            for layer, unit_sets in enumerate(self.unit_sets)
        ]

    def train(self, tokens_NT: Tensor, rule: StepRule) -> None:
        """Run all training steps on sequences [sequences, time], repeated as needed; raises RecoveryDiverged."""
        Training(
            self.module,
            tokens_NT,
            self._recovery,
            loss=next_token_loss,
            rule=rule,
            accelerator=self._accelerator,
            store=None,
            progress=_TrainingLog(self._context.log, self.steps),
        ).run()

    def write_merged(self) -> None:
        """Merge the adapters and write every linear layer's weight, in the model's dtype, to the plan.

        The model cannot be used afterwards.
        """
        parameters = dict(merge_adapters(self.module).named_parameters())
        streamed = self._context.streamed
        for layer in range(self._context.layers):
            names = {
                f"{linear}.weight": f"{streamed.block_prefix(layer)}.{linear}.weight" for linear in self._family.linears
            }
            merged = {
                name: parameters[full].detach().to(streamed.dtype) for name, full in names.items() if full in parameters
            }
            self._context.planned.write(layer, merged)
        # under autocast the model refers to itself, and its memory must not wait for the garbage collector
        self.module.to("meta")


class _TrainingLog(Progress):
    """Progress of the training as ten log messages."""

    def __init__(self, log: Callable[[str], None], steps: int) -> None:
        self._log = log
        self._steps = steps

    def metric(self, name: str, step: int, value: float) -> None:
        if step % max(1, self._steps // 10) == 0 or step == self._steps:
            self._log(f"step {step} of {self._steps}: loss {value:.4f}")


def effective_weight(linear: MaskedLoraLinear) -> Tensor:
    """Return W + scale·BA in float32, in the weight's own layout."""
    weight = linear.get_base_layer().weight
    assert isinstance(weight, Tensor)
    return weight.float() + linear.update(*linear.factors)


def estimated_gradient(linear: MaskedLoraLinear) -> Tensor:
    """Return the estimated gradient ĝ = scale·(g_B·A + B·g_A − g_B·g_A), in the weight's own layout.

    LoRAPrune (Zhang 2023, arXiv:2305.18403): a gradient step of unit rate takes A and B to A − g_A and B − g_B;
    scale·BA, and with it the weight, moves by −ĝ. Needs the gradients of the adapter alone.
    """
    A, B = linear.factors
    g_A, g_B = A.grad, B.grad
    assert g_A is not None and g_B is not None, "called after a backward"
    g_OI: Tensor = torch.cat([g_B, B], 1) @ torch.cat([A - g_A, g_A]) * linear.scaling[ADAPTER]
    return (g_OI.T if linear.fan_in_fan_out else g_OI).float()


class RemovalSchedule(StepRule):
    """Rule of the training steps that removes units on the way; `kept` are the units kept so far.

    `scores` are an exponential moving average from 0 on, over the steps: momentum·score + (1 − momentum)·new.
    """

    def __init__(self, context: UnitSelectionContext, adapter_model: AdapterModel, momentum: float) -> None:
        self._context, self._adapter_model, self._momentum = context, adapter_model, momentum
        self.scores: UnitScores = []
        self.kept = KeptUnits(layers={})

    def add(self, new: UnitScores) -> None:
        """Add a step's scores to the average."""
        before = self.scores or [{kind: torch.zeros_like(each) for kind, each in layer.items()} for layer in new]
        self.scores = [
            {kind: self._momentum * old[kind] + (1 - self._momentum) * each for kind, each in layer.items()}
            for old, layer in zip(before, new, strict=True)
        ]

    def keep_highest(self, scores: UnitScores, share: float) -> None:
        """Keep the units of highest score after `share` of the removal; removed ones are never kept again.

        All scores must be at least 0.
        """
        masked = [dict(layer) for layer in scores]
        for layer, units in self.kept.layers.items():
            for kind, score_U in masked[layer].items():
                if kind in units:
                    masked[layer][kind] = torch.full_like(score_U, -1.0)
                    masked[layer][kind][units[kind]] = score_U[units[kind]]
        self.kept = self._context.keep_highest(masked, self._context.counts_at(share))


class AdapterMethod(UnitMethod):
    """Method that removes units while adapters are trained, and merges the adapters into the weights that stay."""

    weight_reads = 1
    tries_models = True

    def __init__(self, parameters: AdapterOptions) -> None:
        self.parameters = parameters

    @abstractmethod
    def schedule(self, context: UnitSelectionContext, adapter_model: AdapterModel) -> RemovalSchedule:
        """Return the rule by which units go during the training."""

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        assert context.calibration is not None
        adapter_model = AdapterModel(context, self.parameters.training(context.calibration.shape[1]))
        schedule = self.schedule(context, adapter_model)
        adapter_model.train(context.calibration, schedule)
        adapter_model.write_merged()
        note = f"The weights of {context.layers} blocks were trained while it was chosen what goes."
        return context.plan_of(schedule.kept).model_copy(update={"notes": [note]})

    def prune_block(self, block: BlockToPrune, dense: TokensAtBlock | None, pruned: PrunedTokens | None) -> PrunedBlock:
        """Return the units of the plan, and the trained weights without the others."""
        assert block.kept is not None and block.planned.keys() <= block.tensors.keys()
        trained = {name: each.to(block.tensors[name].device) for name, each in block.planned.items()}
        return PrunedBlock(block.kept, remove_units(trained, block.unit_sets, block.kept))
