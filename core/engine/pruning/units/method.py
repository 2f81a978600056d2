"""Interface of methods that remove units: what they get of the model to plan, and of each block to prune it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from core.engine.architectures.architecture import Architecture, Experts
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_counts import LayerCounts, WidthReduction
from core.engine.architectures.units import KindName, UnitKind
from core.engine.cuts import RemovalPlan
from core.engine.models.experts import ExpertStacks, RoutedTokens
from core.engine.models.folder import ModelFolder
from core.engine.models.hooks import removed_after
from core.engine.models.streamed import StreamedModel
from core.engine.options.axes import MethodParameters
from core.engine.pruning.input_statistics import InputMoments, InputStatistic, StackedMoments
from core.engine.pruning.schedule import counts_at
from core.engine.pruning.streams.hidden_states import ActivationBudget
from core.engine.pruning.streams.propagation import InputGroup, arrivals
from core.engine.pruning.streams.stream import Stream
from core.engine.pruning.units.ranking import ranked_counts
from core.engine.pruning.units.removal import (
    KeptLayerUnits,
    KeptUnits,
    UnitCounts,
    UnitSet,
    highest,
    layer_unit_sets,
    require_finite,
)
from core.engine.pruning.units.unit_slices import StackSlice
from core.engine.resume.kinds import SELECTION
from core.engine.resume.store import ResumeStore
from secateur_wire.job_body import Layout

Moments: TypeAlias = InputMoments | StackedMoments
"""Mean and variance of a weight's inputs; for a stack, those of each expert."""


@dataclass(frozen=True)
class TokensAtBlock:
    """Calibration tokens that have reached a block; `run` sends all of them through it, at most once.

    `places` are those of each micro-batch, in the order in which they run, that count; None: all of a micro-batch do.
    """

    block: nn.Module
    run: Callable[[], None]
    places: Sequence[Tensor | None]

    def moments(self, linears: Iterable[str]) -> dict[str, InputMoments]:
        """Run the tokens; return mean and variance of linear layers' inputs, by name within the block."""
        moments = {name: InputMoments() for name in linears}
        places = {name: iter(self.places) for name in moments}
        groups = [InputGroup((name,)) for name in moments]

        def arrive(group: InputGroup, inputs: Tensor) -> None:
            moments[group.first].update(inputs, next(places[group.first]))

        with arrivals(self.block, groups, arrive):
            self.run()
        return moments

    @contextmanager
    def routed(self, stacks: ExpertStacks, on_tokens: Callable[[RoutedTokens], None]) -> Iterator[None]:
        """Call `on_tokens` with each micro-batch's tokens that count as they reach the experts, inside the context."""
        places = iter(self.places)

        def arrive(module: nn.Module, arguments: tuple[object, ...], keywords: Mapping[str, object]) -> None:
            tokens = RoutedTokens.of(arguments, keywords)
            assert tokens is not None
            on_tokens(tokens.at(next(places)))

        with removed_after([stacks.module.register_forward_pre_hook(arrive, with_kwargs=True)]):
            yield

    def moments_of_units(self, experts: Experts | None, unit_sets: Iterable[UnitSet]) -> dict[str, Moments]:
        """Run the tokens; return mean and variance of the inputs of all weights that read units, by name.

        For an expert the inputs of its last matrix are multiplied by the tokens' gates, zero for tokens that are routed
        elsewhere. For an expert without tokens the inputs of all tokens count, without gates.
        """
        slices = [each for unit_set in unit_sets for each in unit_set.reading_slices]
        stacks = [each.name for each in slices if isinstance(each, StackSlice)]
        linears = [each.linear for each in slices if not isinstance(each, StackSlice)]
        if not stacks:
            of_linears = self.moments(linears)
            return {f"{linear}.weight": each for linear, each in of_linears.items()}
        assert experts is not None
        own, calls = ExpertStacks(self.block, experts), list[RoutedTokens]()
        with self.routed(own, calls.append):
            of_linears = self.moments(linears)
        of_experts = StackedMoments([_moments_of_expert(own, calls, expert) for expert in range(len(own))])
        return {f"{linear}.weight": each for linear, each in of_linears.items()} | dict.fromkeys(stacks, of_experts)


def _moments_of_expert(stacks: ExpertStacks, calls: Sequence[RoutedTokens], expert: int) -> InputMoments:
    moments = InputMoments()
    total = sum(len(tokens.hidden_NH) for tokens in calls)
    for tokens in calls:
        rows_N, inner_NI = tokens.gated_inner(stacks, expert)
        if len(rows_N):
            moments.update(inner_NI)
    if not moments.tokens:
        for tokens in calls:
            moments.update(stacks.inner(tokens.hidden_NH, expert))
    moments.add_zeros(total - moments.tokens)
    return moments


FitLinears: TypeAlias = Callable[[InputGroup, InputStatistic], Mapping[str, Tensor]]
"""Function of linear layers that read one input, and of that input's statistic after the pruned blocks. It returns
their new weights by the layer's name.

They have the shape and layout of the dense model's; removed columns are zero. The statistic has XᵀX and either the
`target_OI`, or the dense inputs' `cross_II`.
"""
FitExpert: TypeAlias = Callable[[int, Tensor, InputStatistic, bool], Tensor]
"""Function of an expert's number, its last matrix and that matrix's inputs after the pruned blocks. It returns the new
one.

Both are [outputs, inputs]; removed columns are zero. Inputs are times the tokens' gates, and `target_OI` is from the
residual of the other experts. The last argument is True if any token reaches the expert; otherwise inputs are those of
all tokens, without gates, and the target is the matrix's own output.
"""


@dataclass(frozen=True)
class PrunedTokens(TokensAtBlock):
    """Calibration tokens that have come through the earlier pruned blocks to the dense block.

    `are_dense` is True if they still equal the dense model's. `fit` replaces `run`: it sends them through the block
    once, side by side with the dense ones. The linear layers of each group, in the order of execution, get their new
    weights when all tokens have reached them; the tokens continue through these weights. Before a gap, the target of
    the last layer is the dense stream behind the gap. `fit_experts` does the same for the last matrix of each expert,
    one after the other, in a block with some changed weights, given by name. `reading` returns in advance a linear
    layer's statistic for `FitLinears`, without advancing the tokens.
    """

    are_dense: Callable[[], bool]
    fit: Callable[[Sequence[InputGroup], FitLinears], None]
    reading: Callable[[str], InputStatistic]
    fit_experts: Callable[[Mapping[str, Tensor], FitExpert], None]


Scores: TypeAlias = Sequence[Mapping[KindName, Tensor]]
"""Score of each unit of each decoder layer, by kind: [units]; the highest are kept."""


class PlannedTensors:
    """Tensors of blocks that a method computes in its plan, and reads again when it prunes the block.

    There is a file for each block, saved with the plan.
    """

    def __init__(self, store: ResumeStore) -> None:
        self._store = store

    def write(self, layer: int, tensors: Mapping[str, Tensor]) -> None:
        self._store.write(SELECTION, 0, self._name(layer), tensors)

    def read(self, layer: int) -> dict[str, Tensor]:
        """Return a block's tensors, empty where none were written."""
        name = self._name(layer)
        return self._store.read(SELECTION, 0, name) if self._store.has(SELECTION, 0, name) else {}

    def _name(self, layer: int) -> str:
        return f"planned-{layer:05d}"


@dataclass(frozen=True)
class UnitSelectionContext:
    """Dense model and everything else that a structured method may use to choose.

    `streamed` is the dense model, with empty blocks. `calibration` are token ids [sequences, time]. `scratch` is a
    folder for the activations beyond `budget`. `planned` stores tensors of a block for the method's later use in the
    pass. `removal` has the counts that the kind of removal decided. `sparsity` is the share of all parameters to
    remove, or the least share with `at_least`. The remaining layers have the shapes of the `layout`. `begin_trials` is
    called before trials of a choice, whose loops are then the progress.
    """

    folder: ModelFolder
    structure: ModelStructure
    streamed: StreamedModel
    sparsity: float
    at_least: bool
    layout: Layout
    removal: RemovalPlan
    calibration: Tensor | None
    forward_dtype: torch.dtype
    micro_batch: int
    budget: ActivationBudget
    scratch: Path
    planned: PlannedTensors
    log: Callable[[str], None]
    begin_trials: Callable[[], None]

    @property
    def layers(self) -> int:
        return len(self.structure.layers)

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        """Kinds of units within a block that a method chooses among."""
        return self.removal.kinds

    @property
    def width_reduction(self) -> WidthReduction | None:
        """Width reduction of the layers; None where no layer gets narrower."""
        return self.removal.width_reduction

    @property
    def counts(self) -> Sequence[LayerCounts] | None:
        """Counts each layer keeps; None where they depend on the scores."""
        return None if self.width_reduction is None else self.width_reduction.counts

    def stream(
        self, name: str, tokens_NT: Tensor, micro_batch: int | None = None, *, keeps_all: bool = False
    ) -> AbstractContextManager[Stream]:
        """Return a stream of tokens [sequences, time] through the dense model, closed at the end of its context."""
        stream = Stream(
            name,
            tokens_NT,
            self.streamed,
            ResumeStore(self.scratch, ""),
            self.budget,
            dtype=self.forward_dtype,
            micro_batch=micro_batch or self.micro_batch,
            resumable=False,
            keeps_all=keeps_all,
        )
        return closing(stream)

    def unit_sets(self, layer: int) -> list[UnitSet]:
        return layer_unit_sets(self.folder.family, self.structure, layer, self.kinds)

    def counts_at(self, share: float) -> tuple[LayerCounts, ...]:
        """Return the counts of each layer after `share` of the removal: all units at 0, `counts` at 1."""
        assert self.counts is not None
        return tuple(
            counts_at(share, counts, shape, self.kinds)
            for counts, shape in zip(self.counts, self.structure.layers, strict=True)
        )

    def keep_highest(self, scores: Scores, counts: Sequence[LayerCounts] | None = None) -> KeptUnits:
        """Keep the units of highest score in every layer, with `counts` or else the context's counts.

        Ties go to the later units. Where the units of all layers compete, the scores determine the counts too. Raises
        NotFiniteWeights where a score is not finite.
        """
        assert self.width_reduction is not None
        require_finite(dict(enumerate(scores)))
        counts = counts or self.counts
        if counts is None:
            assert self.width_reduction.ranking is not None
            counts = ranked_counts(self.structure, scores, self.kinds, self.width_reduction.ranking)
        return KeptUnits(
            layers={
                layer: highest(shape, self.kinds, scores[layer], counts[layer])
                for layer, shape in enumerate(self.structure.layers)
            },
        )

    def without_layers(self, removed: Sequence[int]) -> KeptUnits:
        """Keep everything but these layers."""
        return KeptUnits(layers={layer: {} for layer in range(self.layers) if layer not in removed})

    def plan_of(self, kept: KeptUnits) -> UnitCounts:
        """Return the plan to keep these units, which then are all chosen."""
        return kept.counts(self.structure, self.kinds)

    def dense_blocks(self) -> Iterator[tuple[int, dict[str, Tensor], TokensAtBlock]]:
        """Yield every block's number, its dense tensors and the tokens that reach it, which have to be run.

        One block has its weights at a time; hidden states are in memory up to the budget, then in files.
        """
        assert self.calibration is not None
        streamed = self.streamed
        with self.stream("dense", self.calibration) as stream:
            stream.start()
            for index, tensors in streamed.read_blocks(range(len(streamed)), "reading what the dense blocks read"):
                block = streamed.fill_block(index, tensors, stream.dtype)
                yield index, tensors, TokensAtBlock(block, partial(stream.advance, block, index), stream.places)
                streamed.empty_block(index)


@dataclass(frozen=True)
class BlockToPrune:
    """Decoder layer `layer` with all units, its tensors named within the block, and the `counts` to keep.

    `tensors` also has the biases, at zero, that the counts' settings add to the block. `planned` are tensors from the
    method's plan, `kept` the units that it chose, if it did. `last_before_gap` is the linear layer with the last
    addition to the stream before removed layers; None where no layer right behind the block is removed, or no linear
    layer adds to it.
    """

    family: Architecture
    layer: int
    shape: LayerShape
    kinds: tuple[UnitKind, ...]
    unit_sets: list[UnitSet]
    counts: LayerCounts
    tensors: Mapping[str, Tensor]
    planned: Mapping[str, Tensor]
    kept: KeptLayerUnits | None
    last_before_gap: str | None = None

    def keep_highest(self, scores: Mapping[KindName, Tensor]) -> KeptLayerUnits:
        """Keep the units of highest score, with the block's counts; raises NotFiniteWeights."""
        require_finite({self.layer: scores})
        return highest(self.shape, self.kinds, scores, self.counts)


@dataclass(frozen=True)
class PrunedBlock:
    """Units a block keeps, and its changed tensors, without the other units.

    `scores` are the scores of all units, by kind, if there are any. `costs` is the expected increase of the loss from
    the removal, by kind, in nats per token, where there is an estimate.
    """

    units: KeptLayerUnits
    changed: Mapping[str, Tensor] = field(default_factory=dict)
    costs: Mapping[KindName, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    scores: Mapping[KindName, Sequence[float]] = field(default_factory=dict)

    def joined_with(self, other: "PrunedBlock") -> "PrunedBlock":
        """Return the same block without the units that another choice, of other kinds, removes."""
        return PrunedBlock(
            {**other.units, **self.units},
            {**other.changed, **self.changed},
            {**other.costs, **self.costs},
            [*other.notes, *self.notes],
            {**other.scores, **self.scores},
        )


class UnitMethod(ABC):
    """Choice of the units a model keeps: their number before the pass, the units themselves then or in the pass.

    `weight_reads` is the largest number of times it reads all weights to plan. With `tries_models` it evaluates or
    trains models all the while it plans, which takes about as long as the pass over the blocks; a plan that begins
    trials late says so itself. `reads` are the calibration tokens that it needs in the pass: none, those of the dense
    model, or also those that come through the pruned blocks.
    """

    weight_reads: int
    tries_models: bool = False
    reads: ClassVar[Literal["none", "dense", "pruned"]] = "none"

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        """Return the number of units each layer keeps, and the layers that stay, from the entire model."""

    def prune_block(self, block: BlockToPrune, dense: TokensAtBlock | None, pruned: PrunedTokens | None) -> PrunedBlock:
        """Return the units a block keeps, with its counts; here those of the plan.

        `dense` are tokens of the dense model before the block, `pruned` tokens from the pruned blocks before it, as far
        as the method `reads` them; both may go through the dense block side by side. The result depends on nothing but
        the arguments and the parameters, because another attempt may resume here.
        """
        assert block.kept is not None
        return PrunedBlock(block.kept)
