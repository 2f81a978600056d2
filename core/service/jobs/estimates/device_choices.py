"""Account of the bytes that a device of its own memory holds while a model is trained to choose what goes.

Such a choice is not traced: there is no training on a device without values. There are forwards through the whole model
by which it is probed, the training of its adapters, and scores.
"""

from typing import Any

from core.device_kinds import DeviceKind
from core.engine.architectures.block_shape import BlockShape
from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.methods.cost import FLOAT, Cost, CostFacts
from core.service.jobs.estimates.device_training import TrainedModel, account_training
from core.service.jobs.estimates.ledger import Ledger

LOGIT_POSITIONS = 256
"""Positions whose logits are computed at a time."""
_MICRO_BATCH_TOKENS = 4096
_ROTARY_FEATURES = 256
"""Cosines and sines of a position, of the widest heads."""


def trained_choice_bytes(facts: CostFacts[Any], cost: Cost[Any], device: DeviceKind) -> int:
    """Return the peak of a choice by training; 0 where a method does not train."""
    recovery = cost.training(facts)
    if recovery is None:
        return 0
    description, ledger = facts.description, Ledger()
    block, model = BlockShape.of(description), TrainedModel(description, recovery, device)
    scoring, copies = cost.scoring_bytes(facts, block.largest), FLOAT * model.trained * cost.adapter_copies(facts)
    with ledger.holding(_outer_bytes(facts)):
        _account_probing(ledger, facts, cost.probed_tokens(facts), model, scoring)
        account_training(ledger, model, copies=copies, scoring=max(copies, scoring))
    return ledger.estimate


def _account_probing(ledger: Ledger, facts: CostFacts[Any], tokens: int, model: TrainedModel, scoring: int) -> None:
    """Account for forwards of `tokens` tokens through the whole model with its adapters, then for scores.

    Hidden states of all tokens wait in front of the block that runs. While a batch goes through the block, the output
    of the batch before it is still held.
    """
    if not tokens:
        return
    block, width, window = BlockShape.of(facts.description), model.stored_bytes, max(1, facts.tokens.window)
    batch = min(window * max(1, _MICRO_BATCH_TOKENS // window), tokens)
    hidden = block.hidden_size * width
    widest = max(size // group.inputs for group in block.groups for size in group.sizes)
    # An adapter's part of what a layer gives, and that scaled, in float32, as what the adapter reads.
    adapting = (2 * FLOAT - width) * widest + (FLOAT * block.hidden_size if width < FLOAT else 0)
    with ledger.holding(width * model.description.parameters + FLOAT * model.trained):
        with ledger.holding(tokens * hidden):
            before = batch * hidden if tokens > batch else 0
            ledger.reach(before + batch * (block.passing * width + adapting))
            ledger.reach(batch * hidden + _logits_bytes(facts.description, facts.tokens.window))
        ledger.reach(scoring)


def _outer_bytes(facts: CostFacts[Any]) -> int:
    """Return the bytes of embeddings, final norm and head."""
    description = facts.description
    outer = description.parameters - description.prunable_parameters - description.other_module_parameters
    rotary = 4 * min(_ROTARY_FEATURES, description.hidden_size) * facts.tokens.window
    return (max(outer, 0) + rotary) * WEIGHT_BYTES[description.dtype]


def _logits_bytes(description: ModelDescription, sequence: int) -> int:
    """Return the most bytes while the loss of a sequence is measured, a few positions at a time."""
    width = WEIGHT_BYTES[description.dtype]
    logits = min(LOGIT_POSITIONS, sequence - 1) * description.vocabulary_size
    normed = sequence * description.hidden_size * (width + 2 * FLOAT)
    return max(normed + logits * width, logits * max(width + (FLOAT if width < FLOAT else 0), 2 * FLOAT))
