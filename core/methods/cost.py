"""Costs of choosing what goes from a language model, beside what every job costs: a class for each kind of method.

A method whose cost is like no other's has it in its `info`. Costs are read off headers and the recipe alone; no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar

from core.engine.architectures.description import ModelDescription
from core.engine.options.base import MethodParameters
from core.engine.recovery.request import Recovery
from core.engine.removals.widths.adapter_options import AdapterOptions

GRADIENT_PASSES = 4
"""Cost of gradients taken block by block, in forwards: two, and the backward."""
WAITING_FOR_MEMORY = 10
"""Slowdown of a product with a vector against its share of one with a matrix, about.

Each number is read for one product only.
"""
MASK_BYTES = 12
"""Bytes of a weight while a device's mask of the lowest scores is made: its score, a count of ties, four masks."""
FLOAT = 4
"""Bytes of a value in float32."""
_GRADIENT_BYTES = 16
"""Bytes of a weight, the sums of its gradients and of their squares, and one gradient, in float32."""

_P = TypeVar("_P", bound=MethodParameters)
_A = TypeVar("_A", bound=AdapterOptions)


@dataclass(frozen=True)
class Tokens:
    """Tokens that pass through the model.

    They are those of the calibration set, of all evaluation sets together, of a window, of all questions of zero-shot
    tasks, and of prompts, after which so many are `written`, one at a time. `own_text` are those of text the model has
    still to generate itself, many sequences at once.
    """

    calibration: int
    evaluation: int
    window: int
    tasks: int = 0
    prompts: int = 0
    written: int = 0
    own_text: int = 0


@dataclass(frozen=True)
class CostFacts(Generic[_P]):
    """Model, checked parameters of the method, sparsity and tokens of a job."""

    description: ModelDescription
    parameters: _P
    sparsity: float
    tokens: Tokens


@dataclass(frozen=True)
class PassSizes:
    """Sizes of the pass over the blocks, beside which a method holds what it needs.

    `block_weights` are those of the largest block, `weight_bytes` the bytes of each in a forward, `forward_bytes` those
    of the activations of a micro-batch, `activation_budget_bytes` the most that inputs of blocks may take.
    """

    block_weights: int
    weight_bytes: int
    forward_bytes: int
    activation_budget_bytes: int


@dataclass(frozen=True)
class ChoiceMemory:
    """Bytes held to choose: `during` the pass over the blocks, or `before` it, with embeddings and head alone."""

    during: int = 0
    before: int = 0


@dataclass(frozen=True)
class ChoosingForwards:
    """Forwards of so many calibration `tokens`, block by block, by which a method chooses before the pass.

    `holds_blocks`: all blocks have their weights meanwhile, else one has. Hidden states of all tokens are kept before
    `kept_before` blocks, up to the activation budget, and before the block that runs, whatever the budget, where
    `waits`.
    """

    tokens: int
    holds_blocks: bool
    kept_before: int = 0
    waits: bool = False


class Cost(Generic[_P]):
    """Cost of a method that chooses block by block, in one pass over the calibration tokens or two."""

    def passes(self, facts: CostFacts[_P]) -> int:
        """Return the tokens that pass through the model to choose, in forwards."""
        propagation, allocation = facts.parameters.propagation_options, facts.parameters.allocation_options
        is_two_pass = propagation is not None and propagation.propagation == "two_pass"
        is_owl = allocation is not None and allocation.measured_allocation == "owl"
        return (2 if is_two_pass or is_owl else 1) * facts.tokens.calibration

    def operations(self, facts: CostFacts[_P]) -> int:
        """Return the floating-point operations of the choice beyond forwards, XᵀX and its factorisation."""
        return 0

    def memory(self, facts: CostFacts[_P], sizes: PassSizes) -> ChoiceMemory:
        """Return the bytes that are held to choose."""
        return ChoiceMemory()

    def solver_bytes(self, facts: CostFacts[_P], inputs: int, sizes: Sequence[int]) -> int:
        """Return the most bytes that a device holds while linear layers are pruned which read the same `inputs`.

        `sizes` are their numbers of weights. The weights in float32 and the statistic of their inputs are left out;
        what the solver makes of both, and the layers it is done with, are counted.
        """
        return self.matrix_bytes(facts.parameters, facts.sparsity, inputs, sizes)

    def matrix_bytes(self, parameters: _P, sparsity: float, inputs: int, sizes: Sequence[int]) -> int:
        """Return what `solver_bytes` does, of any model: layers of classifiers are matrices too."""
        return in_turn(sizes, MASK_BYTES)

    def choosing_forwards(self, facts: CostFacts[_P]) -> ChoosingForwards | None:
        """Return the forwards by which it is chosen before the pass what goes; None where there are none."""
        return None

    def scoring_bytes(self, facts: CostFacts[_P], weights: int) -> int:
        """Return the bytes that a device holds beside the whole model while so many weights of a layer are scored."""
        return 0

    def gradient_sums(self, facts: CostFacts[_P]) -> int:
        """Return how many sums there are of a block's gradients: of themselves, and of their squares."""
        return 0

    def gradient_tokens(self, facts: CostFacts[_P]) -> int:
        """Return the calibration tokens whose gradients are taken block by block before the pass."""
        return 0

    def calibration_lanes(self, facts: CostFacts[_P]) -> int:
        """Return how many models calibration tokens go through while a pass chooses units block by block."""
        return 0

    def calibration_aims(self, facts: CostFacts[_P]) -> int:
        """Return how many streams of calibration tokens wait beside those of the models, for layers to aim at."""
        return 0

    def training(self, facts: CostFacts[_P]) -> Recovery | None:
        """Return the training that is part of the choice."""
        return None

    def adapter_copies(self, facts: CostFacts[_P]) -> int:
        """Return how many copies of what is trained are held from one step to the next."""
        return 0


class GradientCost(Cost[_P]):
    """Cost of a method that takes gradients block by block."""

    def passes(self, facts: CostFacts[_P]) -> int:
        return GRADIENT_PASSES * facts.tokens.calibration

    def gradient_tokens(self, facts: CostFacts[_P]) -> int:
        return facts.tokens.calibration

    def memory(self, facts: CostFacts[_P], sizes: PassSizes) -> ChoiceMemory:
        inputs = 4 * facts.description.layers * facts.description.hidden_size * facts.tokens.calibration
        return ChoiceMemory(
            during=sizes.block_weights * _GRADIENT_BYTES + min(inputs, sizes.activation_budget_bytes),
        )


class AdapterCost(Cost[_A]):
    """Cost of a method that trains adapters to choose."""

    def passes(self, facts: CostFacts[_A]) -> int:
        return facts.parameters.probed(facts.description.layers)

    def scoring_bytes(self, facts: CostFacts[_A], weights: int) -> int:
        """Return the bytes of a weight's gradient, itself with its update, and what that is made from, in float32."""
        return weights * FLOAT * (3 if facts.description.dtype == "float32" else 4)

    def training(self, facts: CostFacts[_A]) -> Recovery:
        return facts.parameters.training(max(2, facts.tokens.window))


def in_turn(sizes: Sequence[int], workspace: float) -> int:
    """Return the most bytes held while layers of so many weights are solved, one after the other.

    Of each there are `workspace` bytes for a weight while it is solved, and its weights in float32 from then on.
    """
    done = accumulate((4 * size for size in sizes), initial=0)
    return max(round(before + workspace * size) for before, size in zip(done, sizes, strict=False))


def column_operations(description: ModelDescription) -> int:
    """Return the operations of one pass over the columns of all layers, each a product with a matrix like XᵀX."""
    return sum(linear.numel * linear.in_features for linear in description.linears)
