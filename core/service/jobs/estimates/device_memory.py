"""Account of the bytes that a device of its own memory holds at the peak of a pass that removes units.

It follows the engine, allocation by allocation: a stage holds some tensors throughout and others in turn, and its peak
is the most that there is at a time. Widths are those of the largest block, so that nothing grows with depth but what
loads whole models. What the libraries beneath torch take for themselves, the fragments of the allocator and the
device's context are not in it.

Letters: D is the hidden size, I the inputs of a linear layer, V the vocabulary, w the bytes of a stored weight, f those
of a value in the calibration forward.
"""

from collections.abc import Sequence

from core.device_kinds import DeviceKind
from core.engine.architectures.block_shape import BlockShape, GroupShape
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.unit_splits import MOST_SPLITS, SPLIT_TOKENS
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.pruning.layerwise.waiting import waiting_bytes
from core.methods.cost import FLOAT, Tokens
from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.estimates.compute import compared_tokens, facts_of
from core.service.jobs.estimates.device_choices import (
    account_choosing_training,
    account_forwards,
    account_gradients,
    moment_bytes,
)
from core.service.jobs.estimates.ledger import Ledger
from core.service.jobs.estimates.pass_facts import PassFacts
from core.service.jobs.estimates.what_is_left import kept_shares


def pass_bytes(
    description: ModelDescription, job: Recipe, tokens: Tokens, *, device: DeviceKind, activation_budget_bytes: int
) -> int:
    """Return the peak of a pass that removes units, and of choices made block by block before it."""
    given = PassFacts(
        facts_of(description, job, tokens),
        get_method(job.method).variant(job.pattern).cost,
        job.parameters.requested_compensation,
        FLOAT if tokens.calibration and not device.prefers_16_bit else WEIGHT_BYTES[description.dtype],
        activation_budget_bytes,
        device,
    )
    left = BlockShape.of(description, kept_shares(description, job, device))
    return unit_removal_bytes(given, left, compares=compared_tokens(job, tokens) > 0)


def _prune_block(
    ledger: Ledger,
    given: PassFacts,
    dense: BlockShape,
    block: BlockShape,
    evaluated: Sequence[tuple[int, int]],
) -> None:
    """Account for a block that is pruned while two models go side by side: all tokens wait in front of each group.

    They have their hidden states on the device, whether these fit the budget or not. There is the block as it was read
    and as it is saved, beside those of the forwards. The `dense` block may be wider than the one that is fitted.
    """
    tokens, f = given.driving, given.forward_bytes
    batch = min(given.micro_batch, tokens)
    driving = [(tokens, f)] * given.lanes
    aims = [(tokens, f)] * given.cost.calibration_aims(given.facts)
    states = given.kept_bytes([*driving, *evaluated, *aims])
    states += given.lanes * tokens * block.hidden_size * f - given.kept_bytes(driving)
    weights = dense.weights * (f + given.unshared_bytes)
    weights += block.weights * ((given.lanes - 1) * f + given.unshared_bytes)
    with ledger.holding(states + weights):
        waited = behind = 0
        for dense_group, group in zip(dense.groups, block.groups, strict=True):
            passing, arriving = _arriving(given, dense_group, group, behind)
            waiting, statistic = _waiting(given, dense_group, group), _statistic(given, group)
            # Of one micro-batch alone there is no statistic before it arrives.
            ledger.reach(waiting_bytes(tokens, batch, waited, waiting, passing) + (statistic if tokens > batch else 0))
            with ledger.holding(statistic):
                ledger.reach(waiting_bytes(tokens, batch, waited, waiting, arriving))
                with ledger.holding(waiting * tokens):
                    _prune_group(ledger, given, dense_group, group)
            waited, behind = waiting, group.waiting


def _waiting(given: PassFacts, dense: GroupShape, group: GroupShape) -> int:
    """Return the bytes of a token that waits before a group; in the dense model it has passed one that is added."""
    passed = given.description.hidden_size if dense.is_added else 0
    return given.forward_bytes * (dense.waiting + group.waiting + passed)


def _arriving(given: PassFacts, dense: GroupShape, group: GroupShape, behind: int) -> tuple[int, int]:
    """Return the most bytes of a token on its way to a group, beside the block's input, and while it is taken in there.

    The dense model's comes first, while the other's waits with so many values `behind`. The statistic reads inputs in
    float32: those of 16 bits, and the dense model's, are copied. Of a group that is added to the residual stream there
    are, before, what it gives in the dense model, both streams, and their difference in float32.
    """
    f, is_copied, hidden = given.forward_bytes, given.forward_bytes < FLOAT, given.description.hidden_size
    statistic = group.inputs * is_copied
    dense_waiting = _waiting(given, dense, group) - f * group.waiting
    passing = max(f * group.arriving + dense_waiting, f * (dense.arriving + behind))
    if dense.is_added:
        statistic = max(hidden * (4 if is_copied else 2), hidden + statistic)
    else:
        statistic += dense.inputs * is_copied
    return passing, f * group.waiting + FLOAT * statistic + dense_waiting


def _statistic(given: PassFacts, group: GroupShape) -> int:
    """Return the bytes of the statistic of a group's inputs."""
    gram = FLOAT * group.inputs * (group.inputs + (given.description.hidden_size if group.is_added else group.inputs))
    chooses = given.compensation is not None and given.compensation.chooses
    return gram * (2 if chooses else 1)  # of the tokens that are held out as well


def _prune_group(ledger: Ledger, given: PassFacts, dense: GroupShape, group: GroupShape) -> None:
    """Account for linear layers of one input that are chosen or fitted, rounded and measured.

    What is fitted is made from the `dense` layers' weights.
    """
    w, weights, largest = given.weight_bytes, FLOAT * group.weights, FLOAT * max(group.sizes)
    squares, fitted_from = FLOAT * group.inputs**2, weights * dense.inputs // group.inputs
    refits = given.compensation is not None and given.compensation.refits
    with ledger.holding(weights):
        if refits:  # a factor, DᵀX − XᵀX, what is missing; the directions, and what is moved by them
            ledger.reach(fitted_from + largest + max(2 * squares, weights))
        with ledger.holding(weights if refits else 0):
            ledger.reach(given.cost.solver_bytes(given.facts, group.inputs, group.sizes))
        rounded = 0 if w == FLOAT else w * group.weights + largest
        ledger.reach(weights + rounded + 3 * largest)  # (W − Ŵ)XᵀX, and that times W − Ŵ


def _forward(ledger: Ledger, given: PassFacts, block: BlockShape, batch: int, width: int) -> None:
    """Account for a micro-batch that goes through a block as it is."""
    with ledger.holding(block.weights * width):
        ledger.reach(batch * block.passing * width)


def _measure(ledger: Ledger, given: PassFacts, streams: Sequence[tuple[int, int]]) -> None:
    """Account for perplexity, from the last block's outputs of one window and a few positions at a time."""
    tokens = given.facts.tokens
    if tokens.evaluation:
        with ledger.holding(given.kept_bytes(streams)):
            ledger.reach(given.logits_bytes(min(tokens.window, tokens.evaluation)))


def unit_removal_bytes(given: PassFacts, left: BlockShape, *, compares: bool) -> int:
    """Return the peak of a pass that removes units, and of the gradients by which they are chosen, if by any.

    `left` is what the largest block is left as, or more. `compares`: splits of what goes between attention and FFN are
    compared first, all of them block by block.
    """
    ledger, block = Ledger(), BlockShape.of(given.description)
    tokens, w, f = given.facts.tokens, given.weight_bytes, given.forward_bytes
    evaluated = [(tokens.evaluation, w)] * 2
    with ledger.holding(given.outer_bytes):
        chooses = given.cost.calibration_lanes(given.facts)
        calibrated = [(tokens.calibration, f)] * given.lanes if given.lanes > 1 or chooses else []
        _measure(ledger, given, [*evaluated, *calibrated])
        with ledger.holding(given.kept_bytes([*evaluated, *calibrated])):
            _forward(ledger, given, block, min(given.micro_batch, tokens.evaluation), w)
            ledger.reach(block.weights * w * (2 - given.facts.sparsity))  # what is left is sliced
            if chooses == 1:
                batch = min(given.micro_batch, tokens.calibration)
                with ledger.holding(block.weights * (f + given.unshared_bytes)):
                    ledger.reach(batch * max(moment_bytes(given, group) for group in block.groups))
        if chooses > 1:  # while the block is cut
            _prune_block(ledger, given, block, block, evaluated)
        elif given.lanes > 1:
            is_trained = given.cost.training(given.facts) is not None  # then there are a block's weights once more
            with ledger.holding(block.weights * w * is_trained):
                _prune_block(ledger, given, block, left, evaluated)
        if compares:
            seen = min(tokens.calibration, SPLIT_TOKENS)
            batch = min(given.micro_batch, seen)
            with ledger.holding(block.weights * (f + given.unshared_bytes) + given.kept_bytes([(seen, f)])):
                ledger.reach(batch * max(moment_bytes(given, group) for group in block.groups))
            with ledger.holding(given.kept_bytes([((1 + MOST_SPLITS) * seen, f)])):
                _forward(ledger, given, block, batch, f)
        if choosing := given.cost.choosing_forwards(given.facts):
            account_forwards(ledger, given, block, choosing)
        account_choosing_training(ledger, given, block)
        if measured := given.cost.gradient_tokens(given.facts):
            account_gradients(ledger, given, block, given.cost.gradient_sums(given.facts), measured)
    return ledger.estimate
