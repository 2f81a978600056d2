"""Interfaces of structured methods: those that choose everything first, and those that choose block by block."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from core.engine.options.axes import MethodParameters
from core.engine.pruning.units.block_tokens import BlockToPrune, PrunedBlock, PrunedTokens, TokensAtBlock
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import KeptUnits, UnitCounts


class UnitMethod(ABC):
    """Choice of the units a model keeps; `weight_reads` is the number of times it reads all weights.

    With `tries_models` it evaluates or trains models to choose, which takes about as long as the pass over the blocks.
    """

    weight_reads: ClassVar[int]
    tries_models: bool = False

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def select(self, context: UnitSelectionContext) -> KeptUnits:
        """Return the units to keep, with the context's counts."""


class BlockUnitMethod(ABC):
    """Choice of a block's units during the pass that removes them; the remaining weights may be updated.

    `weight_reads` is the largest number of times it reads all weights to plan. With `reads_pruned` it needs the tokens
    that come through the pruned blocks. Where it tries models, its `plan` begins the trials.
    """

    weight_reads: int
    tries_models: ClassVar[bool] = False
    reads_pruned: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        """Return the number of units each layer keeps, and the layers that stay, from the entire model."""

    @abstractmethod
    def prune_block(
        self, block: BlockToPrune, dense: TokensAtBlock, pruned: PrunedTokens | None, log: Callable[[str], None]
    ) -> PrunedBlock:
        """Return the units a block keeps, with its counts.

        `dense` are tokens of the dense model before the block. `pruned`, given with `reads_pruned`, are tokens from the
        pruned blocks before it; both may go through the dense block side by side. The result depends on nothing but the
        arguments and the parameters, because another attempt may resume here.
        """
