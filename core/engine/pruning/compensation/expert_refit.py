"""Refit of a mixture with fewer or narrower experts: the remaining experts and the router compensate for the loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from core.engine.architectures.architecture import Experts
from core.engine.models.experts import RoutedTokens, mixture_module, router_tensors
from core.engine.models.hooks import removed_after
from core.engine.options.axes import ROUTER_STEPS, SWEEPS, Refit
from core.engine.pruning.compensation.last_matrices import (
    LastMatrices,
    MixtureBatch,
    MixtureCall,
    hooked_experts,
    mixture_batches,
)
from core.engine.pruning.compensation.refit import fitted_tokens, refit
from core.engine.pruning.compensation.unit_refit import RemainingLayer, UnitRefit
from core.engine.pruning.streams.propagation import BlockPropagation, InputGroup

_MOST_NOTES = 3
"""Largest number of notes on a block's experts in the report."""
_FIRST_STEP = 0.05
"""Length of the router's first step, as a share of the length of its rows; a step that does not help is halved."""
_MOST_HALVINGS = 3


class _RoutingDone(Exception):
    """Raised to end a forward that is run for its routing alone."""

    def __init__(self, tokens: RoutedTokens) -> None:
        super().__init__()
        self.tokens = tokens


class ExpertFit(LastMatrices):
    """Fit of one mixture block, with its present last matrices and router, to the target outputs of the experts.

    ŷ(x̂) = Σ_e g_e(x̂)·f_e(x̂) on the tokens x̂ that reach the experts. The residual to the target is a least-squares
    problem in each expert's last matrix. Its regressors are the rows g_e(x̂)·z_e(x̂) of the tokens routed to the
    expert, where z_e is the input of that matrix. Experts are fitted one after the other, in a few sweeps, so that the
    statistics of only one are in memory. Then the router's rows follow the gradient of the same error, by the model's
    own routing, for a few steps.

    If there are hold-out tokens, they decide if the fit is kept; otherwise all tokens do.
    """

    def __init__(
        self,
        experts: Experts,
        block: nn.Module,
        batches: Sequence[MixtureBatch],
        tensors: dict[str, Tensor],
        compensation: Refit,
        fitted: int | None,
    ) -> None:
        super().__init__(experts, block, batches, tensors, fitted)
        self.block = block
        self.mixture = block.get_submodule(mixture_module(experts))
        self.compensation = compensation
        self.notes: list[str] = []

    @property
    def error(self) -> float | None:
        """‖Y − Ŷ‖/‖Y‖ on the tokens that decide."""
        lost, total = map(self._squared_norms, (self.residual, [batch.target_NH for batch in self.batches]))
        return sqrt(lost[-1] / total[-1]) if total[-1] > 0 else None

    @property
    def reached(self) -> tuple[int, ...]:
        """Number of tokens that are routed to each expert at present."""
        total_E = torch.zeros(len(self.stacks), dtype=torch.long)
        for tokens in self.routed:
            total_E += tokens.reached(len(total_E))
        return tuple(total_E.tolist())

    def run(self) -> list[float]:
        """Fit the last matrices in sweeps, then the router in steps; return the α of each matrix in the first sweep."""
        shares: list[float] = []
        if self.is_normed:
            self.notes.append("a norm follows each expert's last matrix, so that the router alone was refitted.")
        else:
            for _ in range(SWEEPS):
                of_sweep = self._sweep()
                if of_sweep is None:
                    break
                shares = shares or of_sweep
        self._fit_router()
        return shares

    def _sweep(self) -> list[float] | None:
        """Fit each expert's last matrix to the others' residual; if that does not help, undo it and return None."""
        name = self.experts.parameter(self.experts.giving)
        before, residual = self.tensors[name].clone(), [each.clone() for each in self.residual]
        errors = self._squared_norms(residual)
        shares = []
        for expert in range(len(self.stacks)):
            share = self._fit_expert(expert)
            if share is not None:
                shares.append(share)
        if not _improves(errors, self._squared_norms(self.residual)):
            self._set(name, before)
            self.residual = residual
            return None
        return shares

    def _fit_expert(self, expert: int) -> float | None:
        """Fit one expert's last matrix and return α; None where no fitted token reaches the expert."""
        statistic = self.statistic(expert)
        if statistic is None:
            return None
        (fit,) = refit([self.weight_OI(expert)], statistic, self.compensation, self.notes.append)
        self.change(expert, fit.weight_OI)
        return fit.refit

    def _fit_router(self) -> None:
        """Move the router's rows along the gradient of the error while no error on fitted or hold-out tokens grows."""
        names = [
            name
            for name in router_tensors(self.experts, self.tensors)
            if self.tensors[name].is_floating_point() and name in dict(self.block.named_parameters())
        ]
        step = _FIRST_STEP
        halvings = 0
        gradients: dict[str, Tensor] | None = None
        for _ in range(ROUTER_STEPS + _MOST_HALVINGS):
            gradients = gradients or self._router_gradients(names)
            if not gradients:
                self.notes.append("its router has no weights that the gates follow: its experts alone were refitted.")
                return
            length = sqrt(sum(float(each.square().sum(dtype=torch.float64)) for each in gradients.values()))
            if not length:
                return
            before = {name: self.tensors[name].clone() for name in gradients}
            size = sqrt(sum(float(each.double().square().sum()) for each in before.values()))
            for name, gradient in gradients.items():
                moved = before[name].float() - (step * size / length) * gradient
                self._set(name, moved.to(before[name].dtype))
            routed = [self._route(batch) for batch in self.batches]
            residual = self.residual_of(routed)
            if _improves(self._squared_norms(self.residual), self._squared_norms(residual)):
                self.routed, self.residual = routed, residual
                gradients = None
                continue
            for name, value in before.items():
                self._set(name, value)
            step /= 2
            halvings += 1
            if halvings > _MOST_HALVINGS:
                return

    def _router_gradients(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return half the gradient of the squared error on the fitted tokens, through the model's own routing."""
        sums: dict[str, Tensor] = {}
        prefix = mixture_module(self.experts)
        inner = {name: name.removeprefix(f"{prefix}.") if prefix else name for name in names}
        per_gate = self._gate_gradients()
        with torch.inference_mode(mode=False), torch.enable_grad():
            stacks = {id(parameter) for parameter in self.stacks.module.parameters()}
            state = [*self.mixture.named_parameters(), *self.mixture.named_buffers()]
            own = {name: value.detach().clone() for name, value in state if id(value) not in stacks}
            leaves = {name: own[key].requires_grad_() for name, key in inner.items()}
            for batch, gradient_NK in zip(self.batches, per_gate, strict=True):
                gates_NK = self._route(batch, own).gates_NK
                if not gates_NK.requires_grad:
                    return {}
                derivatives = torch.autograd.grad(
                    gates_NK, list(leaves.values()), gradient_NK.to(gates_NK.dtype).clone(), allow_unused=True
                )
                for name, each in zip(leaves, derivatives, strict=True):
                    if each is not None:
                        sums[name] = sums[name] + each.float() if name in sums else each.float()
        return sums

    def _gate_gradients(self) -> list[Tensor]:
        """Return half the derivative of the squared error by each gate, [tokens, top_k]; 0 for hold-out tokens."""
        gradients = [torch.zeros_like(tokens.gates_NK, dtype=torch.float32) for tokens in self.routed]
        for expert in range(len(self.stacks)):
            for tokens, residual_NH, gradient_NK in zip(self.routed, self.residual, gradients, strict=True):
                rows_N, places_N = torch.where(tokens.index_NK == expert)
                if len(rows_N):
                    output_NH = self.outputs(tokens, rows_N, expert)
                    gradient_NK[rows_N, places_N] = -(residual_NH[rows_N] * output_NH).sum(1)
        for gradient_NK, most in zip(gradients, self.fitted, strict=True):
            gradient_NK[max(most, 0) :] = 0
        return gradients

    def _route(self, batch: MixtureBatch, state: Mapping[str, Tensor] | None = None) -> RoutedTokens:
        """Return the routing of a micro-batch's tokens that count, by the mixture's own code.

        `state` takes the place of its tensors. With a state the arguments are copied, because autograd cannot save
        tensors of inference mode.
        """

        def stop(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            tokens = RoutedTokens.of(arguments, keywords)
            assert tokens is not None
            raise _RoutingDone(tokens)

        with removed_after([self.stacks.module.register_forward_pre_hook(stop, with_kwargs=True)]):
            arguments, keywords = batch.call.arguments, dict(batch.call.keywords)
            if state:
                arguments = tuple(map(_copy, arguments))
                keywords = {name: _copy(each) for name, each in keywords.items()}
            try:
                functional_call(self.mixture, dict(state or {}), arguments, keywords)
            except _RoutingDone as routed:
                return routed.tokens.at(None if batch.places_N is None else batch.places_N.clone())
        raise AssertionError(f"{self.experts.module} was not reached")

    def _squared_norms(self, values: Sequence[Tensor]) -> list[float]:
        """Return the sums of squares over the fitted tokens and, if there are any, over the hold-out tokens."""
        pairs = [(each, max(most, 0)) for each, most in zip(values, self.fitted, strict=True)]
        parts = [[each[:most] for each, most in pairs], [each[most:] for each, most in pairs]]
        norms = [sum(float(each.square().sum(dtype=torch.float64)) for each in part) for part in parts]
        return norms if self.others_decide else norms[:1]

    def _set(self, name: str, value: Tensor) -> None:
        self.tensors[name].copy_(value)
        self.block.get_parameter(name).data.copy_(value)


def _improves(before: Sequence[float], after: Sequence[float]) -> bool:
    """Return True if no error has grown and the last one, which decides, has fallen."""
    return all(one >= other for one, other in zip(before, after, strict=True)) and after[-1] < before[-1]


def _copy(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


@dataclass(frozen=True)
class FittedRouting:
    """Routing of the calibration tokens in one decoder layer: tokens per expert, dense and pruned.

    `error` and `refitted` are ‖Y − Ŷ‖/‖Y‖ of the experts' outputs, before and after their refit, on the hold-out tokens
    or else on all. Y is the target of the fit, so that 0 is the dense model's output.
    """

    tokens: tuple[int, ...]
    tokens_left: tuple[int, ...]
    error: float | None
    refitted: float | None


class ExpertRefit(UnitRefit):
    """Refit of the remaining experts and routers, block by block.

    `routing` has an entry for each layer whose experts were fitted. The α in `chosen` is the mean over a block's
    experts, in the first sweep.
    """

    refitted = "The last matrices of the experts left, and those of attention where heads went,"

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        assert self.family.experts is not None
        self.experts: Experts = self.family.experts
        self.routing: dict[int, FittedRouting] = {}

    def fit(self, layer: RemainingLayer) -> dict[str, Tensor]:
        """Refit a layer's remaining experts and router, as `UnitRefit.fit` does for linear layers.

        Linear layers beside them that read removed heads are refitted first.
        """
        index, place, tensors, left = layer.index, layer.place, layer.tensors, layer.left
        fitted = dict(left)
        giving = self.experts.parameter(self.experts.giving)
        if giving not in left and layer.kept:  # in a block without experts, linear layers lost channels
            return super().fit(layer)
        if giving not in left or self._is_dense(layer):
            self._advance(layer, fitted)
            return fitted
        for name in (giving, *router_tensors(self.experts, left)):
            fitted[name] = left[name].clone()  # the dense block may share the memory
        dense = self.streamed.fill_block(index, tensors, self.dense_stream.dtype)
        self._fit_readers(layer, dense, fitted)
        given: list[Tensor] = []
        places = self.dense_stream.places
        reached_E = torch.zeros(len(tensors[giving]), dtype=torch.long)

        def note(call: MixtureCall, given_NH: Tensor) -> None:
            places_N = places[len(given)]
            given.append(given_NH)
            reached_E.add_(call.tokens.at(places_N).reached(len(reached_E)))

        with hooked_experts(dense, self.experts, note):
            self.dense_stream.advance(dense, index)
        self.streamed.empty_block(index)
        block = self.narrow.fill_block(place, fitted, self.stream.dtype)
        fitting = ExpertFit(
            self.experts,
            block,
            mixture_batches(self.experts, block, self.stream, place, self.dense_stream, given),
            fitted,
            self.compensation,
            fitted_tokens(self.compensation, self.stream),
        )
        before = fitting.error
        shares = fitting.run()
        if self.compensation.chooses and shares:
            self.chosen[f"{self.streamed.block_prefix(index)}.{giving}"] = round(sum(shares) / len(shares), 4)
        for text in fitting.notes[:_MOST_NOTES]:
            self.note(f"Layer {index}: {text}")
        self.routing[index] = FittedRouting(tuple(reached_E.tolist()), fitting.reached, before, fitting.error)
        self.stream.advance(block, place)
        return fitted

    def _fit_readers(self, layer: RemainingLayer, dense: nn.Module, fitted: dict[str, Tensor]) -> None:
        """Refit the linear layers that read removed units, without advancing the tokens."""
        readers = [each for each in layer.unit_sets if each.kind in layer.kept and each.linear in self.family.linears]
        if readers:
            block = self.narrow.fill_block(layer.place, fitted, self.stream.dtype)
            groups = [InputGroup((each.linear,)) for each in readers]
            fit = self._fitting(layer, fitted, block)
            reference = self.paired.reference(dense, layer.index)
            read = BlockPropagation(block, layer.place, self.stream, groups, self._new_statistic, reference)
            for group, statistic in read.collect().items():
                fit(group, statistic)
