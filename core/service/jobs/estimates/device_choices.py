"""Accounts of the bytes that a device holds while it is chosen before the pass what goes.

Letters are those of `device_memory`.
"""

from core.engine.architectures.block_shape import BlockShape, GroupShape
from core.methods.cost import FLOAT, ChoosingForwards
from core.service.jobs.estimates.device_training import TrainedModel, account_training
from core.service.jobs.estimates.kept_values import KeptValues
from core.service.jobs.estimates.ledger import Ledger
from core.service.jobs.estimates.pass_facts import LOGIT_POSITIONS, PassFacts


def account_forwards(ledger: Ledger, given: PassFacts, block: BlockShape, choosing: ChoosingForwards) -> None:
    """Account for forwards by which a method chooses: of the blocks, and of the head where all of them are there.

    With the head a batch goes through while there is still what the one before has become. Where another dtype is
    stored than that of the forward, each block lies beside its copy when that is made.
    """
    f, tokens, model = given.forward_bytes, choosing.tokens, _trained(given)
    weights = f * (given.description.prunable_parameters if choosing.holds_blocks else block.weights)
    adapting = 0
    if model is not None:  # which is opened as a whole
        f = model.stored_bytes
        weights = f * model.description.parameters + FLOAT * model.trained
        widest = max(size // group.inputs for group in block.groups for size in group.sizes)
        # An adapter's part of what a layer gives, and that scaled, in float32, as what the adapter reads.
        adapting = (2 * FLOAT - f) * widest + (FLOAT * block.hidden_size if f < FLOAT else 0)
    hidden = block.hidden_size * f
    batch = min(given.micro_batch, tokens)
    states = given.kept_bytes([(tokens, f)] * choosing.kept_before) + tokens * hidden * choosing.waits
    with ledger.holding(weights):
        ledger.reach(block.weights * given.unshared_bytes)
        with ledger.holding(states):
            before = batch * hidden if choosing.holds_blocks and tokens > batch else 0
            own = 0 if choosing.holds_blocks else hidden * choosing.waits  # those that wait are the block's own input
            ledger.reach(before + batch * (block.passing * f - own + adapting))
            if choosing.holds_blocks:
                ledger.reach(batch * hidden + given.logits_bytes(given.facts.tokens.window))
        ledger.reach(given.cost.scoring_bytes(given.facts, block.largest))


def account_choosing_training(ledger: Ledger, given: PassFacts, block: BlockShape) -> None:
    """Account for the training by which a method chooses, if by any, and for the scores it takes at each step."""
    model = _trained(given)
    if model is not None:
        copies = FLOAT * model.trained * given.cost.adapter_copies(given.facts)
        scoring = given.cost.scoring_bytes(given.facts, block.largest)
        account_training(ledger, model, copies=copies, scoring=max(copies, scoring))


def _trained(given: PassFacts) -> TrainedModel | None:
    recovery = given.cost.training(given.facts)
    return None if recovery is None else TrainedModel(given.description, recovery, given.device)


def moment_bytes(given: PassFacts, group: GroupShape) -> int:
    """Return the most bytes of a token on its way to a group whose inputs' mean and variance are taken, in float32."""
    f = given.forward_bytes
    moments = FLOAT * group.inputs * (2 if f < FLOAT else 1)
    return f * given.description.hidden_size + max(f * group.arriving, f * group.waiting + moments)


def account_gradients(ledger: Ledger, given: PassFacts, block: BlockShape, sums: int, tokens: int) -> None:
    """Account for gradients taken block by block, a sequence at a time, of so many tokens.

    There are a block, the sums of its gradients, and the inputs of all blocks up to the budget; then the gradients of a
    sequence beside what its forward kept for them, or the weights in float32 beside the importance of a layer's. Before
    these there are gradients of a few positions' logits.
    """
    description, f, window = given.description, given.forward_bytes, given.facts.tokens.window
    inputs = min(description.layers * tokens * block.hidden_size * f, given.activation_budget_bytes)
    with ledger.holding(inputs + tokens * block.hidden_size * f):
        positions = min(LOGIT_POSITIONS, window - 1)
        logits = positions * description.vocabulary_size * (f + (2 if f < FLOAT else 1) * FLOAT + FLOAT)
        ledger.reach(logits + 3 * window * block.hidden_size * FLOAT)
        kept = KeptValues(window, f, f)
        with ledger.holding(block.weights * (f + FLOAT * sums)):
            read = sum(group.inputs * len(group.sizes) for group in block.groups)
            with ledger.holding(0 if sums else window * FLOAT * read):  # squares of what each layer reads
                kept.way_back(ledger, block, f if sums else 0)
            if sums:
                squared = 2 * FLOAT * block.largest if sums > 1 else 0
                ledger.reach(block.weights * f + squared)
                converted = FLOAT * block.weights if f < FLOAT else 0
                ledger.reach(converted + FLOAT * block.largest * (1 + sums))
