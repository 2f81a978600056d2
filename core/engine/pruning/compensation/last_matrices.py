"""Last matrices of a mixture's experts, and outputs of the experts that reproduce the dense block's output."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from core.engine.architectures.architecture import Experts
from core.engine.datasets.counted_tokens import rows_at
from core.engine.models.experts import ExpertStacks, RoutedTokens, mixture_module, out_in
from core.engine.models.hooks import removed_after
from core.engine.models.streamed import call_block
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.streams.stream import Stream
from core.engine.pruning.units.method import FitExpert

_SUM_TOLERANCE = 0.05
"""Relative tolerance for the test that a block's output grows by its experts' output when that is doubled."""


@dataclass(frozen=True)
class MixtureCall:
    """Call of a block's experts with one micro-batch.

    `arguments` and `keywords` are those of the mixture, the module that has both experts and router.
    """

    tokens: RoutedTokens
    arguments: tuple[object, ...]
    keywords: Mapping[str, object]


@dataclass(frozen=True)
class MixtureBatch:
    """Micro-batch at a block's experts: the `tokens` that count, and their target output.

    `call` has all tokens; `places_N` are those that count, None: all.
    """

    call: MixtureCall
    places_N: Tensor | None
    tokens: RoutedTokens
    target_NH: Tensor


OnExperts: TypeAlias = Callable[[MixtureCall, Tensor], None]
"""Callback with a call of a block's experts and their output, [tokens, hidden size]."""


@contextmanager
def hooked_experts(block: nn.Module, experts: Experts, on_call: OnExperts) -> Iterator[None]:
    """Call `on_call` with each call of a block's experts."""
    outer: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def enter(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
        outer.append((arguments, keywords))

    def leave(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object], output: Tensor) -> None:
        tokens = RoutedTokens.of(arguments, keywords)
        assert tokens is not None
        on_call(MixtureCall(tokens, *outer.pop()), output.reshape(tokens.hidden_NH.shape))

    mixture, own = block.get_submodule(mixture_module(experts)), block.get_submodule(experts.module)
    handles = [
        mixture.register_forward_pre_hook(enter, with_kwargs=True),
        own.register_forward_hook(leave, with_kwargs=True),
    ]
    with removed_after(handles):
        yield


def mixture_batches(
    experts: Experts, block: nn.Module, stream: Stream, place: int, dense: Stream, given: Sequence[Tensor]
) -> list[MixtureBatch]:
    """Run a stream's tokens through block `place`, without advancing them; return each micro-batch's target.

    Where the block adds the experts' output to the rest, the target is the experts' output that makes the block's
    output equal to the dense one, which the `dense` stream holds. Otherwise it is `given`, the dense model's experts'
    output.
    """
    batches: list[MixtureBatch] = []
    calls: list[tuple[MixtureCall, Tensor]] = []
    is_added: bool | None = None
    places = stream.places
    for batch, hidden in stream.batches():
        arguments = stream.arguments(place, batch)
        with hooked_experts(block, experts, lambda call, given_NH: calls.append((call, given_NH))):
            output = call_block(block, hidden, arguments)
        call, given_NH = calls.pop()
        if is_added is None:
            twice = block.get_submodule(experts.module).register_forward_hook(lambda *given: 2 * given[-1])
            with removed_after([twice]):
                doubled = call_block(block, hidden, arguments)
            is_added = _is_sum(output, doubled, given_NH)
        target_NH = given[batch].float()
        if is_added:
            rest = dense.hidden(batch).float() - output.float()
            target_NH = rest.reshape(given_NH.shape) + given_NH.float()
        places_N = places[batch]
        batches.append(MixtureBatch(call, places_N, call.tokens.at(places_N), rows_at(target_NH, places_N)))
    return batches


def _is_sum(output: Tensor, doubled: Tensor, given_NH: Tensor) -> bool:
    """Return True if doubling the experts' output changes the block's output by exactly that output."""
    if output.numel() != given_NH.numel():
        return False
    added_NH = (doubled.float() - output.float()).reshape(given_NH.shape)
    return bool((added_NH - given_NH.float()).norm() <= _SUM_TOLERANCE * given_NH.float().norm())


class LastMatrices:
    """Present last matrices of a block's experts, and their `residual` to the target, by micro-batch.

    They are changed in the block and, in the form to be saved, in `tensors`. `fitted` is the number of first tokens to
    which weights are fitted; None: all.
    """

    def __init__(
        self,
        experts: Experts,
        block: nn.Module,
        batches: Sequence[MixtureBatch],
        tensors: dict[str, Tensor],
        fitted: int | None,
    ) -> None:
        self.experts = experts
        self.stacks = ExpertStacks(block, experts)
        self.batches = batches
        self.tensors = tensors
        starts = torch.tensor([0, *(len(batch.target_NH) for batch in batches)]).cumsum(0).tolist()
        total = starts.pop()
        self.fitted = [(total if fitted is None else fitted) - start for start in starts]
        self.others_decide = fitted is not None
        self.routed = [batch.tokens for batch in batches]
        self.residual = self.residual_of(self.routed)

    def weight_OI(self, expert: int) -> Tensor:
        """Return an expert's present last matrix in float32."""
        stored = self.tensors[self.experts.parameter(self.experts.giving)][expert]
        return out_in(stored, self.experts).float()

    def statistic(self, expert: int) -> InputStatistic | None:
        """Return the statistic of an expert's last matrix's inputs, with the residual of the other experts.

        None where no fitted token reaches the expert.
        """
        weight_OI = self.weight_OI(expert)
        reached = [tokens.of_expert(expert)[0] for tokens in self.routed]
        fitted = sum(int((rows_N < most).sum()) for rows_N, most in zip(reached, self.fitted, strict=True))
        total = sum(len(rows_N) for rows_N in reached)
        if not fitted or (self.others_decide and fitted == total):
            return None
        statistic = InputStatistic(
            Statistic.GRAM, sample_stride=1, fitted_tokens=fitted if self.others_decide else None
        )
        for tokens, residual_NH in zip(self.routed, self.residual, strict=True):
            rows_N, regressors_NI = tokens.gated_inner(self.stacks, expert)
            statistic.update(regressors_NI, target=residual_NH[rows_N] + regressors_NI @ weight_OI.T)
        return statistic

    def own_statistic(self, expert: int) -> InputStatistic:
        """Return the statistic of the inputs and outputs of an expert's last matrix: of all tokens if it has none."""
        statistic, weight_OI = InputStatistic(Statistic.GRAM, sample_stride=1), self.weight_OI(expert)
        is_reached = any(len(tokens.of_expert(expert)[0]) for tokens in self.routed)
        for tokens in self.routed:
            hidden_NH = tokens.hidden_NH[tokens.of_expert(expert)[0]] if is_reached else tokens.hidden_NH
            inner_NI = self.stacks.inner(hidden_NH, expert).float()
            statistic.update(inner_NI, target=inner_NI @ weight_OI.T)
        return statistic

    @property
    def is_normed(self) -> bool:
        """Return True if a norm follows each expert's last matrix, so that the residual is not linear in it."""
        return bool(getattr(self.stacks.module, "has_post_expert_norm", False))

    def change(self, expert: int, weight_OI: Tensor) -> None:
        """Set an expert's last matrix, rounded as it is saved, and update the residual."""
        stored = self.tensors[self.experts.parameter(self.experts.giving)][expert]
        before_OI = self.weight_OI(expert)
        changed = out_in(weight_OI, self.experts).to(stored.dtype)
        change_OI = out_in(changed, self.experts).float() - before_OI
        for tokens, residual_NH in zip(self.routed, self.residual, strict=True):
            rows_N, regressors_NI = tokens.gated_inner(self.stacks, expert)
            residual_NH.index_add_(0, rows_N, regressors_NI @ change_OI.T, alpha=-1)
        stored.copy_(changed)
        self.stacks.stack(self.experts.giving).data[expert].copy_(changed)

    def residual_of(self, routed: Sequence[RoutedTokens]) -> list[Tensor]:
        """Return the residual of the experts to the target with this routing, by micro-batch, in float32."""
        residual = [batch.target_NH.clone() for batch in self.batches]
        for expert in range(len(self.stacks)):
            for tokens, residual_NH in zip(routed, residual, strict=True):
                rows_N, gates_N = tokens.of_expert(expert)
                if len(rows_N):
                    output_NH = self.outputs(tokens, rows_N, expert)
                    residual_NH.index_add_(0, rows_N, output_NH * gates_N.float()[:, None], alpha=-1)
        return residual

    def outputs(self, tokens: RoutedTokens, rows_N: Tensor, expert: int) -> Tensor:
        return self.stacks.output(self.stacks.inner(tokens.hidden_NH[rows_N], expert), expert).float()


def fit_last_matrices(
    experts: Experts,
    block: nn.Module,
    batches: Sequence[MixtureBatch],
    tensors: Mapping[str, Tensor],
    fit_expert: FitExpert,
) -> None:
    """Set each expert's last matrix to the result of `fit_expert`, one expert after the other.

    The block is changed; `tensors`, those of the dense block, are not. An expert keeps its outputs as the target where
    a norm follows its last matrix, or where no token reaches it.
    """
    name = experts.parameter(experts.giving)
    fitting = LastMatrices(experts, block, batches, {name: tensors[name].clone()}, None)
    for expert in range(len(fitting.stacks)):
        _fit_one(fitting, expert, fit_expert)


def _fit_one(fitting: LastMatrices, expert: int, fit_expert: FitExpert) -> None:
    """Fit one expert; free its statistic before the next expert's is computed."""
    statistic = None if fitting.is_normed else fitting.statistic(expert)
    own = statistic or fitting.own_statistic(expert)
    fitting.change(expert, fit_expert(expert, fitting.weight_OI(expert), own, statistic is not None))
