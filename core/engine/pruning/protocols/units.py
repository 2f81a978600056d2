"""Interfaces of structured methods: those that choose everything first, and those that choose as the pass comes by."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from core.engine.options.base import MethodParameters
from core.engine.pruning.units.block_tokens import BlockToPrune, PrunedBlock, PrunedTokens, TokensAtBlock
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import KeptUnits, UnitCounts


class UnitMethod(ABC):
    """A choice of the units a model keeps; `weight_reads` is how often it reads all weights to choose."""

    weight_reads: ClassVar[int]

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def select(self, context: UnitSelectionContext) -> KeptUnits:
        """Choose the units to keep, as many as the context's counts say."""


class BlockUnitMethod(ABC):
    """A choice of the units of a block when the pass that removes them is there; what stays may be updated.

    `weight_reads` is how often it reads all weights to plan, at most; `reads_pruned` says whether it asks for the
    tokens that come through the pruned blocks.
    """

    weight_reads: int
    reads_pruned: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        """Return how many units each layer keeps, and the layers that stay: all that needs the entire model."""

    @abstractmethod
    def prune_block(
        self, block: BlockToPrune, dense: TokensAtBlock, pruned: PrunedTokens | None, log: Callable[[str], None]
    ) -> PrunedBlock:
        """Choose the units a block keeps, as many as its counts say.

        Tokens of the dense model come to the dense block; those of the pruned one, with `reads_pruned`, to the same
        dense block behind the pruned ones before, through which both may go side by side. What it returns depends on
        nothing but the arguments and the parameters: another attempt may go on from here.
        """
