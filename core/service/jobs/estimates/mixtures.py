"""Account of the bytes that a job on a mixture holds while its experts are pruned, and of the weights a token meets.

All tokens wait in front of the experts of a block, and the experts are pruned one after the other. So the statistics of
one expert exist at a time, in float32, beside the block in the file's dtype. Another moment may take more, for example
a linear layer with more inputs than an expert has. A job's need is the larger of the two.
"""

from dataclasses import dataclass, fields

from core.engine.architectures.description import ModelDescription
from core.engine.architectures.layer_shape import LinearShape
from core.methods.cost import FLOAT

_GRAMS = 3
"""Matrices as large as XᵀX that a solver holds: itself, its factor and what that is made from."""
_FITTED_GRAMS = 7
"""The same of a refit that is decided by tokens held aside."""
_SOLVED_BYTES = 16
"""Bytes of a weight while it is pruned: itself, its score, its result and what these are made from, in float32."""
_STATES = 4
"""Hidden states of all tokens that a refit of experts holds in float32: read, given, to be given and missing."""
_ROUTED_BYTES = 12
"""Bytes of one of a token's experts: its number and its gate."""


@dataclass(frozen=True)
class ExpertsAccount:
    """Bytes held while the experts of the largest block are pruned, by what they are."""

    outer: int
    block: int
    expert: int
    statistic: int
    waiting: int
    states: int

    @property
    def total(self) -> int:
        """Return the bytes of all accounts."""
        return sum(getattr(self, each.name) for each in fields(self))


def experts_account(
    description: ModelDescription,
    *,
    weight_bytes: int,
    forward_bytes: int,
    tokens: int,
    lanes: int,
    states_bytes: int,
    is_fitted: bool = False,
) -> ExpertsAccount | None:
    """Return the account of a job with `tokens` calibration tokens; None where the model has no experts.

    `lanes` is the number of models that the tokens pass through side by side, `states_bytes` the size of the hidden
    states between blocks. `is_fitted`: the experts' last matrices are fitted to the output of the dense block.
    """
    block = _largest_with_experts(description)
    experts = description.known_as.experts
    if not block or experts is None:
        return None
    stacks = [each for each in block if each.experts is not None]
    weights, loaded = sum(each.numel for each in block), description.parameters - description.prunable_parameters
    one = max(each.out_features * each.in_features for each in stacks)
    inputs = max(each.in_features for each in stacks)
    giving = stacks[-1]
    # A token waits with what it adds to and what the experts read, its router's outputs, and its experts and gates.
    waiting = 2 * description.hidden_size * forward_bytes
    waiting += FLOAT * (giving.experts or 0) + _ROUTED_BYTES * experts.top_k
    inner = giving.in_features * forward_bytes  # of one expert at a time, to which all tokens may go
    return ExpertsAccount(
        outer=max(loaded - description.other_module_parameters, 0) * weight_bytes,
        block=weights * (weight_bytes + lanes * forward_bytes) + (2 * giving.numel * weight_bytes if is_fitted else 0),
        expert=one * _SOLVED_BYTES,
        statistic=(_FITTED_GRAMS if is_fitted else _GRAMS) * FLOAT * inputs**2,
        waiting=tokens * (lanes * waiting + inner),
        states=states_bytes + (_STATES * FLOAT * description.hidden_size * tokens if is_fitted else 0),
    )


def expert_parameters(description: ModelDescription) -> int:
    """Return the weights in experts, which are not trained."""
    return sum(linear.numel for linear in description.linears if linear.experts is not None)


def active_parameters(description: ModelDescription) -> int:
    """Return the prunable parameters that one token is multiplied with: only the experts it is routed to count."""
    experts = description.known_as.experts
    if experts is None:
        return description.prunable_parameters
    idle = sum(
        linear.numel // linear.experts * (linear.experts - min(experts.top_k, linear.experts))
        for linear in description.linears
        if linear.experts is not None
    )
    return description.prunable_parameters - idle


def _largest_with_experts(description: ModelDescription) -> list[LinearShape]:
    blocks: dict[int, list[LinearShape]] = {}
    for linear in description.linears:
        blocks.setdefault(linear.layer, []).append(linear)
    having = (block for block in blocks.values() if any(each.experts is not None for each in block))
    return max(having, key=lambda block: sum(linear.numel for linear in block), default=[])
