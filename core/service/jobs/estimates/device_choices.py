"""Accounts of the bytes that a device holds while it is chosen before the pass what goes.

Letters are those of `device_memory`.
"""

from core.methods.cost import ChoosingForwards
from core.service.jobs.estimates.block_shape import BlockShape, GroupShape, KeptValues
from core.service.jobs.estimates.ledger import Ledger
from core.service.jobs.estimates.pass_facts import FLOAT, LOGIT_POSITIONS, PassFacts


def account_forwards(ledger: Ledger, given: PassFacts, block: BlockShape, choosing: ChoosingForwards) -> None:
    """Account for forwards by which a method chooses: of the blocks, and of the head where all of them are there.

    With the head a batch goes through while there is still what the one before has become. Where another dtype is
    stored than that of the forward, each block lies beside its copy when that is made.
    """
    f, tokens = given.forward_bytes, choosing.tokens
    hidden = block.hidden_size * f
    batch = min(given.micro_batch, tokens)
    states = given.kept_bytes([(tokens, f)] * choosing.kept_before) + tokens * hidden * choosing.waits
    weights = given.description.prunable_parameters if choosing.holds_blocks else block.weights
    with ledger.holding(weights * f):
        ledger.reach(block.weights * given.unshared_bytes)
        with ledger.holding(states):
            before = batch * hidden if choosing.holds_blocks and tokens > batch else 0
            ledger.reach(before + batch * (block.passing * f - hidden * choosing.waits))
            if choosing.holds_blocks:
                ledger.reach(batch * hidden + given.logits_bytes(given.facts.tokens.window))
        if choosing.scores_weights:
            copies = FLOAT * (2 if f < FLOAT else 1)
            ledger.reach(copies * max(size for group in block.groups for size in group.sizes))


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
    largest = max(size for group in block.groups for size in group.sizes)
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
                squared = 2 * FLOAT * largest if sums > 1 else 0
                ledger.reach(block.weights * f + squared)
                converted = FLOAT * block.weights if f < FLOAT else 0
                ledger.reach(converted + FLOAT * largest * (1 + sums))
