"""Refit of a mixture whose experts are fewer: those that stay, and the router, make up for those that went.

With kept set K, ŷ(x̂) = Σ_{e∈K} g_e(x̂)·f_e(x̂) on the tokens x̂ that come to the experts behind the pruned blocks. What
is missing of the target is a least-squares problem in each expert's last matrix, whose regressors are the rows
g_e(x̂)·z_e(x̂) of the tokens routed to it, z_e being what that matrix multiplies. Experts are fitted one after the other,
in a few sweeps, so that the statistics of one exist at a time. Then the router's rows follow the gradient of the same
error, by the model's own routing, a few steps.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from core.engine.architectures.experts import Experts
from core.engine.models.experts import ExpertStacks, RoutedTokens, out_in
from core.engine.models.hooks import removed_after
from core.engine.models.streamed import call_block
from core.engine.options.compensation import Refit
from core.engine.options.experts import ROUTER_STEPS, SWEEPS
from core.engine.pruning.block_pass import FittedRouting
from core.engine.pruning.compensation.refit import fitted_tokens, refit
from core.engine.pruning.compensation.unit_refit import UnitRefit
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.units.removal import KeptLayerUnits, UnitSet

_FIRST_STEP = 0.05
"""Length of the router's first step, as a share of the length of its rows; a step that does not help is halved."""
_MOST_HALVINGS = 3
_ADDED = 0.05
"""Most that a block's output may differ, where its experts give twice as much, from having that added to it."""
_MOST_NOTES = 3
"""Notes on a block's experts that the report has, at most."""


class ExpertRefit(UnitRefit):
    """Refit of the experts and routers that are left, block by block.

    `routing` is that of each layer whose experts were fitted. The α in `chosen` is the mean over a block's experts, in
    the first sweep.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        assert self.family.experts is not None
        self.experts: Experts = self.family.experts
        self.routing: dict[int, FittedRouting] = {}

    @property
    def summary(self) -> str:
        return super().summary.replace("The linear layers that are left", "The last matrices of the experts left", 1)

    def fit(
        self,
        index: int,
        tensors: dict[str, Tensor],
        place: int,
        left: Mapping[str, Tensor],
        unit_sets: Sequence[UnitSet],
        kept: KeptLayerUnits,
    ) -> dict[str, Tensor]:
        """Refit the experts and the router that are `left` of layer `index`, as `UnitRefit.fit` does linear layers."""
        fitted = dict(left)
        giving = self.experts.parameter(self.experts.giving)
        if giving not in left or self._is_dense(tensors, left):
            self._advance(index, tensors, place, fitted)
            return fitted
        for name in (giving, *_router(self.experts, left)):
            fitted[name] = left[name].clone()  # the dense block may hold the same memory
        dense = self.streamed.fill_block(index, tensors, self.dense_stream.dtype)
        given: list[Tensor] = []
        reached_E = torch.zeros(len(tensors[giving]), dtype=torch.long)

        def note(call: _Call) -> None:
            given.append(call.given_NH)
            reached_E.add_(_reached(call.tokens, len(reached_E)))

        with _watched(dense, self.experts, note):
            self.dense_stream.advance(dense, index)
        self.streamed.empty_block(index)
        block = self.narrow.fill_block(place, fitted, self.stream.dtype)
        fitting = _Fitting(
            self.experts,
            block,
            self._batches(block, place, given),
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
        self.routing[index] = FittedRouting(
            tuple(reached_E.tolist()),
            fitting.reached,
            before,
            fitting.error,
        )
        self.stream.advance(block, place)
        return fitted

    def _batches(self, block: nn.Module, place: int, given: Sequence[Tensor]) -> "list[_Batch]":
        """Run the pruned tokens through the block as it is, and return each micro-batch with its target.

        Where the block adds what its experts give to the rest, the target is what would make its output that of the
        dense one, which the dense stream holds by now; else it is what the dense model's experts have `given`.
        """
        batches: list[_Batch] = []
        calls: list[_Call] = []
        is_added: bool | None = None
        for batch, hidden in self.stream.batches():
            arguments = self.stream.arguments(place, batch)
            with _watched(block, self.experts, calls.append):
                output = call_block(block, hidden, arguments)
            call = calls.pop()
            if is_added is None:
                twice = block.get_submodule(self.experts.module).register_forward_hook(lambda *given: 2 * given[-1])
                with removed_after([twice]):
                    doubled = call_block(block, hidden, arguments)
                is_added = _is_sum(output, doubled, call.given_NH)
            target_NH = given[batch].float()
            if is_added:
                rest = self.dense_stream.hidden(batch).float() - output.float()
                target_NH = rest.reshape(call.given_NH.shape) + call.given_NH.float()
            batches.append(_Batch(call.tokens, target_NH, call.arguments, call.keywords))
        return batches


@dataclass(frozen=True)
class _Call:
    """Call of a block's experts with one micro-batch, and what they gave.

    `arguments` and `keywords` are those of the mixture, the module that has both experts and router.
    """

    tokens: RoutedTokens
    given_NH: Tensor
    arguments: tuple[object, ...]
    keywords: Mapping[str, object]


@dataclass(frozen=True)
class _Batch:
    """One micro-batch at a block's experts, and what these are to give; arguments as those of `_Call`."""

    tokens: RoutedTokens
    target_NH: Tensor
    arguments: tuple[object, ...]
    keywords: Mapping[str, object]


class _Routed(Exception):
    """The end of a forward that is run for its routing alone."""

    def __init__(self, tokens: RoutedTokens) -> None:
        super().__init__()
        self.tokens = tokens


class _Fitting:
    """Fit of one block: its last matrices and router as they are by now, in the block and in `tensors`, as saved.

    `fitted` are the first of all tokens, to which weights are fitted; the others decide whether the fit is kept. None:
    all are fitted to, and decide.
    """

    def __init__(
        self,
        experts: Experts,
        block: nn.Module,
        batches: Sequence[_Batch],
        tensors: dict[str, Tensor],
        compensation: Refit,
        fitted: int | None,
    ) -> None:
        self.experts = experts
        self.block = block
        self.stacks = ExpertStacks(block, experts)
        self.mixture = block.get_submodule(_mixture(experts))
        self.batches = batches
        self.tensors = tensors
        self.compensation = compensation
        self.notes: list[str] = []
        starts = torch.tensor([0, *(len(batch.target_NH) for batch in batches)]).cumsum(0).tolist()
        total = starts.pop()
        self.fitted = [(total if fitted is None else fitted) - start for start in starts]
        self._decides_held = fitted is not None
        self.routed = [batch.tokens for batch in batches]
        self.missing = self._missing(self.routed)

    @property
    def error(self) -> float | None:
        """‖Y − Ŷ‖/‖Y‖ on the tokens that decide."""
        lost, total = self._squares(self.missing), self._squares([batch.target_NH for batch in self.batches])
        return sqrt(lost[-1] / total[-1]) if total[-1] > 0 else None

    @property
    def reached(self) -> tuple[int, ...]:
        """How many tokens are routed to each expert by now."""
        total_E = torch.zeros(len(self.stacks), dtype=torch.long)
        for tokens in self.routed:
            total_E += _reached(tokens, len(total_E))
        return tuple(total_E.tolist())

    def run(self) -> list[float]:
        """Fit the last matrices in sweeps, then the router in steps; return the α of each matrix in the first sweep."""
        shares: list[float] = []
        if getattr(self.stacks.module, "has_post_expert_norm", False):
            self.notes.append("a norm follows each expert's last matrix, so that the router alone was refitted.")
        else:
            for _ in range(SWEEPS):
                found = self._sweep()
                if found is None:
                    break
                shares = shares or found
        self._fit_router()
        return shares

    def _sweep(self) -> list[float] | None:
        """Fit each expert's last matrix to what the others leave missing; None, and undone, where that is no use."""
        name = self.experts.parameter(self.experts.giving)
        before, missing = self.tensors[name].clone(), [each.clone() for each in self.missing]
        errors = self._squares(missing)
        shares = []
        for expert in range(len(self.stacks)):
            share = self._fit_expert(expert)
            if share is not None:
                shares.append(share)
        if not _helps(errors, self._squares(self.missing)):
            self._set(name, before)
            self.missing = missing
            return None
        return shares

    def _fit_expert(self, expert: int) -> float | None:
        """Fit one expert's last matrix, keep account of what is missing, and return α; None where no tokens tell."""
        stored = self.tensors[self.experts.parameter(self.experts.giving)][expert]
        device = self.missing[0].device
        weight_OI = out_in(stored.to(device), self.experts).float()
        reached = [tokens.of_expert(expert) for tokens in self.routed]
        fitted = sum(int((rows_N < most).sum()) for (rows_N, _), most in zip(reached, self.fitted, strict=True))
        total = sum(len(rows_N) for rows_N, _ in reached)
        if not fitted or (self._decides_held and fitted == total):
            return None
        statistic = InputStatistic(
            Statistic.GRAM, sample_stride=1, fitted_tokens=fitted if self._decides_held else None
        )
        for tokens, missing_NH, (rows_N, gates_N) in zip(self.routed, self.missing, reached, strict=True):
            regressors_NI = self._regressors(tokens, rows_N, gates_N, expert)
            statistic.update(regressors_NI, target=missing_NH[rows_N] + regressors_NI @ weight_OI.T)
        (fit,) = refit([weight_OI], statistic, self.compensation, self.notes.append)
        changed = out_in(fit.weight_OI, self.experts).to(stored.dtype)
        change_OI = out_in(changed, self.experts).float() - weight_OI
        for tokens, missing_NH, (rows_N, gates_N) in zip(self.routed, self.missing, reached, strict=True):
            regressors_NI = self._regressors(tokens, rows_N, gates_N, expert)
            missing_NH.index_add_(0, rows_N, regressors_NI @ change_OI.T, alpha=-1)
        stored.copy_(changed)
        self.stacks.stack(self.experts.giving).data[expert].copy_(changed)
        return fit.refit

    def _regressors(self, tokens: RoutedTokens, rows_N: Tensor, gates_N: Tensor, expert: int) -> Tensor:
        inner_NI = self.stacks.inner(tokens.hidden_NH[rows_N], expert)
        return inner_NI.float() * gates_N.float()[:, None]

    def _fit_router(self) -> None:
        """Move the router's rows along the gradient of the error, while the error falls on all tokens that count."""
        names = [
            name
            for name in _router(self.experts, self.tensors)
            if self.tensors[name].is_floating_point() and name in dict(self.block.named_parameters())
        ]
        step = _FIRST_STEP
        halvings = 0
        gradients: dict[str, Tensor] | None = None
        for _ in range(ROUTER_STEPS + _MOST_HALVINGS):
            gradients = gradients or self._router_gradients(names)
            length = sqrt(sum(float(each.square().sum(dtype=torch.float64)) for each in gradients.values()))
            if not length:
                self.notes.append("its router has no weights that the gates follow: its experts alone were refitted.")
                return
            before = {name: self.tensors[name].clone() for name in gradients}
            size = sqrt(sum(float(each.double().square().sum()) for each in before.values()))
            for name, gradient in gradients.items():
                moved = before[name].float() - (step * size / length) * gradient.to(before[name].device)
                self._set(name, moved.to(before[name].dtype))
            routed = [self._route(batch) for batch in self.batches]
            missing = self._missing(routed)
            if _helps(self._squares(self.missing), self._squares(missing)):
                self.routed, self.missing = routed, missing
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
        prefix = _mixture(self.experts)
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
                found = torch.autograd.grad(
                    gates_NK, list(leaves.values()), gradient_NK.to(gates_NK.dtype).clone(), allow_unused=True
                )
                for name, each in zip(leaves, found, strict=True):
                    if each is not None:
                        sums[name] = sums[name] + each.float() if name in sums else each.float()
        return sums

    def _gate_gradients(self) -> list[Tensor]:
        """Return half the derivative of the squared error by each gate, [tokens, top_k]; 0 for tokens held aside."""
        gradients = [torch.zeros_like(tokens.gates_NK, dtype=torch.float32) for tokens in self.routed]
        for expert in range(len(self.stacks)):
            for tokens, missing_NH, gradient_NK in zip(self.routed, self.missing, gradients, strict=True):
                rows_N, places_N = torch.where(tokens.index_NK == expert)
                if len(rows_N):
                    output_NH = self._outputs(tokens, rows_N, expert)
                    gradient_NK[rows_N, places_N] = -(missing_NH[rows_N] * output_NH).sum(1)
        for gradient_NK, most in zip(gradients, self.fitted, strict=True):
            gradient_NK[max(most, 0) :] = 0
        return gradients

    def _route(self, batch: _Batch, state: Mapping[str, Tensor] | None = None) -> RoutedTokens:
        """Return where a micro-batch's tokens go, by the mixture's own code, with tensors of a `state` in place of its.

        With a state the arguments are copied, as autograd keeps none that were made for inference alone.
        """

        def stop(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            tokens = RoutedTokens.of(arguments, keywords)
            assert tokens is not None
            raise _Routed(tokens)

        with removed_after([self.stacks.module.register_forward_pre_hook(stop, with_kwargs=True)]):
            try:
                if state is None:
                    self.mixture(*batch.arguments, **batch.keywords)
                else:
                    arguments = tuple(_copied(each) for each in batch.arguments)
                    keywords = {name: _copied(each) for name, each in batch.keywords.items()}
                    functional_call(self.mixture, dict(state), arguments, keywords)
            except _Routed as routed:
                return routed.tokens
        raise AssertionError(f"{self.experts.module} was not reached")

    def _missing(self, routed: Sequence[RoutedTokens]) -> list[Tensor]:
        """Return what the experts as they are leave missing of the target, by micro-batch, in float32."""
        missing = [batch.target_NH.clone() for batch in self.batches]
        for expert in range(len(self.stacks)):
            for tokens, missing_NH in zip(routed, missing, strict=True):
                rows_N, gates_N = tokens.of_expert(expert)
                if len(rows_N):
                    output_NH = self._outputs(tokens, rows_N, expert)
                    missing_NH.index_add_(0, rows_N, output_NH * gates_N.float()[:, None], alpha=-1)
        return missing

    def _outputs(self, tokens: RoutedTokens, rows_N: Tensor, expert: int) -> Tensor:
        return self.stacks.output(self.stacks.inner(tokens.hidden_NH[rows_N], expert), expert).float()

    def _squares(self, values: Sequence[Tensor]) -> list[float]:
        """Return the sums of squares over the fitted tokens and, where some decide, over those held aside."""
        fitted = sum(
            float(each[: max(most, 0)].square().sum(dtype=torch.float64))
            for each, most in zip(values, self.fitted, strict=True)
        )
        if not self._decides_held:
            return [fitted]
        held = sum(
            float(each[max(most, 0) :].square().sum(dtype=torch.float64))
            for each, most in zip(values, self.fitted, strict=True)
        )
        return [fitted, held]

    def _set(self, name: str, value: Tensor) -> None:
        self.tensors[name].copy_(value)
        self.block.get_parameter(name).data.copy_(value)


def _router(experts: Experts, present: Mapping[str, Tensor]) -> list[str]:
    """Return the router's tensors of a block that have an entry for each expert."""
    assert experts.routing is not None, "no whole experts can go"
    return [name for name in experts.routing.rows if name in present and not name.startswith(f"{experts.module}.")]


def _mixture(experts: Experts) -> str:
    """Return the name of the innermost module of a block that has its experts and its router."""
    assert experts.routing is not None
    common = experts.module.split(".")[:-1]
    for name in experts.routing.rows:
        parts = name.split(".")[:-1]
        while parts[: len(common)] != common:
            common.pop()
    return ".".join(common)


@contextmanager
def _watched(block: nn.Module, experts: Experts, on_call: Callable[[_Call], None]) -> Iterator[None]:
    """Call `on_call` with each call of a block's experts."""
    outer: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def enter(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
        outer.append((arguments, keywords))

    def leave(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object], output: Tensor) -> None:
        tokens = RoutedTokens.of(arguments, keywords)
        assert tokens is not None
        on_call(_Call(tokens, output.reshape(tokens.hidden_NH.shape), *outer.pop()))

    mixture, own = block.get_submodule(_mixture(experts)), block.get_submodule(experts.module)
    handles = [
        mixture.register_forward_pre_hook(enter, with_kwargs=True),
        own.register_forward_hook(leave, with_kwargs=True),
    ]
    with removed_after(handles):
        yield


def _is_sum(output: Tensor, doubled: Tensor, given_NH: Tensor) -> bool:
    """Return True if twice as much from the experts has added what they give to a block's output."""
    if output.numel() != given_NH.numel():
        return False
    added_NH = (doubled.float() - output.float()).reshape(given_NH.shape)
    return bool((added_NH - given_NH.float()).norm() <= _ADDED * given_NH.float().norm())


def _reached(tokens: RoutedTokens, experts: int) -> Tensor:
    """Return how many of the tokens are routed to each expert: [experts]."""
    return torch.bincount(tokens.index_NK.flatten(), minlength=experts).cpu()


def _helps(before: Sequence[float], after: Sequence[float]) -> bool:
    """Return True if no error has grown and one, that which decides, has fallen."""
    return all(one >= other for one, other in zip(before, after, strict=True)) and after[-1] < before[-1]


def _copied(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value
