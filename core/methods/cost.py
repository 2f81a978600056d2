"""Costs of choosing what to remove from a language model, in addition to the costs of every job.

There is one class for each kind of method. A method with a cost of its own kind defines it in its `info`. Costs are
computed from headers and the recipe alone, without torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar

from core.engine.architectures.description import ModelDescription
from core.engine.architectures.heterogeneous import Layout
from core.engine.options.base import MethodParameters
from core.engine.recovery.request import Recovery
from core.engine.removals.widths.adapter_options import AdapterOptions

GRADIENT_PASSES = 4
"""Cost of gradients that are computed block by block, in forwards: two forwards, and the backward."""
WAITING_FOR_MEMORY = 10
"""Approximate slowdown of a product with a vector, which reads each number only once, relative to one with a matrix."""
MASK_BYTES = 12
"""Bytes per weight while a device makes the mask of the lowest scores: its score, a count of ties, four masks."""
FLOAT = 4
"""Bytes of a value in float32."""
_GRADIENT_BYTES = 16
"""Bytes per weight: the weight, the sum of its gradients, the sum of their squares and one gradient, in float32."""

_P = TypeVar("_P", bound=MethodParameters)
_A = TypeVar("_A", bound=AdapterOptions)


@dataclass(frozen=True)
class Tokens:
    """Numbers of tokens that pass through the model.

    They are for: the calibration set, all evaluation sets together, one window, all questions of zero-shot tasks, and
    prompts. After the prompts, `written` tokens are generated one at a time. `own_text` is the text that the model
    still has to generate itself, many sequences at the same time. `questions` are questions' tokens, which both models
    answer twice, and `answered` the tokens of one answer to each, at most, many of which are generated together.
    """

    calibration: int
    evaluation: int
    window: int
    tasks: int = 0
    prompts: int = 0
    written: int = 0
    own_text: int = 0
    questions: int = 0
    answered: int = 0


@dataclass(frozen=True)
class CostFacts(Generic[_P]):
    """Model, checked parameters of the method, sparsity and tokens of a job, and the layout of its result."""

    description: ModelDescription
    parameters: _P
    sparsity: float
    tokens: Tokens
    layout: Layout = "uniform"


@dataclass(frozen=True)
class PassSizes:
    """Sizes of the pass over the blocks, to which the memory of the method is added.

    `block_weights` is the number of weights of the largest block, and `weight_bytes` the bytes of each in a forward.
    `forward_bytes` are the activations of a micro-batch. `activation_budget_bytes` is the most that inputs of blocks
    may take.
    """

    block_weights: int
    weight_bytes: int
    forward_bytes: int
    activation_budget_bytes: int


@dataclass(frozen=True)
class ChoiceMemory:
    """Bytes held for the choice: `during` the pass over the blocks, or `before` it, with embeddings and head."""

    during: int = 0
    before: int = 0


class Cost(Generic[_P]):
    """Cost of a method that chooses block by block, in one or two passes over the calibration tokens."""

    def passes(self, facts: CostFacts[_P]) -> int:
        """Return the number of tokens that pass through the model for the choice, in forwards."""
        propagation, allocation = facts.parameters.propagation_options, facts.parameters.allocation_options
        is_two_pass = propagation is not None and propagation.propagation == "two_pass"
        is_owl = allocation is not None and allocation.measured_allocation == "owl"
        return (2 if is_two_pass or is_owl else 1) * facts.tokens.calibration

    def traced_parameters(self, parameters: _P) -> _P:
        """Return parameters with which a pass holds as much at a time, and takes less time to trace."""
        return parameters

    def operations(self, facts: CostFacts[_P]) -> int:
        """Return the floating-point operations of the choice beyond forwards, XᵀX and its factorisation."""
        return 0

    def memory(self, facts: CostFacts[_P], sizes: PassSizes) -> ChoiceMemory:
        """Return the bytes that are held for the choice."""
        return ChoiceMemory()

    def matrix_bytes(self, parameters: _P, sparsity: float, inputs: int, sizes: Sequence[int]) -> int:
        """Return the most bytes held while layers of a classifier are pruned which read the same `inputs`.

        `sizes` are the layers' numbers of weights. The weights in float32 and the statistic of their inputs are not
        counted. The solver's results from both, and the finished layers, are counted.
        """
        return in_turn(sizes, MASK_BYTES)

    def probed_tokens(self, facts: CostFacts[_P]) -> int:
        """Return the calibration tokens that pass through the whole model, forward only, before training begins."""
        return 0

    def scoring_bytes(self, facts: CostFacts[_P], weights: int) -> int:
        """Return the bytes beside the whole model while a device scores a layer with this number of weights."""
        return 0

    def calibration_aims(self, facts: CostFacts[_P]) -> int:
        """Return the number of additional streams of calibration tokens that are kept as targets of layers."""
        return 0

    def training(self, facts: CostFacts[_P]) -> Recovery | None:
        """Return the training that is part of the choice."""
        return None

    def adapter_copies(self, facts: CostFacts[_P]) -> int:
        """Return the number of copies of the trained parameters that are kept from one step to the next."""
        return 0


class GradientCost(Cost[_P]):
    """Cost of a method that computes gradients block by block."""

    def passes(self, facts: CostFacts[_P]) -> int:
        return GRADIENT_PASSES * facts.tokens.calibration

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
        """Return the bytes per weight of its gradient, its updated value, and the sources of both, in float32."""
        return weights * FLOAT * (3 if facts.description.dtype == "float32" else 4)

    def training(self, facts: CostFacts[_A]) -> Recovery:
        return facts.parameters.training(max(2, facts.tokens.window))


def in_turn(sizes: Sequence[int], workspace: float) -> int:
    """Return the most bytes held while layers with these numbers of weights are solved, one after the other.

    A layer takes `workspace` bytes per weight while it is solved, and its weights in float32 from then on.
    """
    done = accumulate((4 * size for size in sizes), initial=0)
    return max(round(before + workspace * size) for before, size in zip(done, sizes, strict=False))


def column_operations(description: ModelDescription) -> int:
    """Return the operations of one pass over the columns of all layers.

    Each column is multiplied by a matrix of the size of XᵀX.
    """
    return sum(linear.numel * linear.in_features for linear in description.linears)
