"""Account of the bytes that a device of its own memory holds while a language model is trained.

It follows `core.engine.recovery`: weights, zeros, moments and a teacher are there throughout, gradients from one backward
pass to the next step; what a forward keeps for the backward, and the logits, come and go.

Letters: P are parameters, D is the hidden size, V the vocabulary; T the tokens of a forward; s the bytes of a value of
the residual stream, c those of one inside a sublayer.
"""

from dataclasses import dataclass
from math import ceil

from core.device_kinds import DeviceKind
from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.recovery.activations import kept_activation_bytes
from core.engine.recovery.registry import RECOVERIES
from core.engine.recovery.request import Recovery, sequences_at_once
from core.service.jobs.estimates.block_shape import BlockShape
from core.service.jobs.estimates.ledger import Ledger
from core.service.jobs.estimates.mixtures import expert_parameters
from core.service.jobs.estimates.pass_facts import FLOAT

_SMALL_TENSORS = 1.02
_ROWS_BYTES = 2**22
"""Bytes of the rows of logits that a divergence works on together."""
_ROW_COPIES = 4


@dataclass(frozen=True)
class TrainedModel:
    """A model that is trained on a device, and how.

    `removed` are the parameters that are gone before; `holds_zeros`: of those that are left some are zero and stay so.
    """

    description: ModelDescription
    recovery: Recovery
    device: DeviceKind
    activation_budget_bytes: int
    removed: int = 0
    holds_zeros: bool = True

    @property
    def parameters(self) -> int:
        return self.description.parameters - self.removed

    @property
    def prunable(self) -> int:
        """Weights of the blocks' linear layers but experts, which are not trained."""
        return self.description.prunable_parameters - self.removed - expert_parameters(self.description)

    @property
    def embeddings(self) -> int:
        """Parameters of embeddings and head."""
        description = self.description
        return description.vocabulary_size * description.hidden_size * (1 if description.tied_embeddings else 2)

    @property
    def trains_weights(self) -> bool:
        return self.recovery.lora is None

    @property
    def is_mixed(self) -> bool:
        """True where forwards compute in bfloat16, by autocast."""
        return self.device.prefers_16_bit and self.description.dtype != "float32"

    @property
    def frozen_bytes(self) -> int:
        return 2 if self.is_mixed and self.description.dtype == "bfloat16" else FLOAT

    @property
    def stored_bytes(self) -> int:
        """Bytes of a weight as it is held."""
        return FLOAT if self.trains_weights else self.frozen_bytes

    @property
    def trained(self) -> int:
        """Parameters that are trained."""
        description, lora = self.description, self.recovery.lora
        if lora is None:
            frozen = expert_parameters(description) + description.other_module_parameters
            return self.parameters - frozen - (0 if self.recovery.train_embeddings else self.embeddings)
        linears = (each for each in description.linears if each.experts is None)
        adapted = (each for each in linears if each.matches(lora.targets or ["*"]))
        return lora.r * sum(each.in_features + each.out_features for each in adapted)

    @property
    def sequences(self) -> int:
        """Sequences of a forward."""
        return sequences_at_once(self.recovery)

    @property
    def tokens(self) -> int:
        return self.sequences * (self.recovery.sequence_length or 0)

    @property
    def accumulates(self) -> bool:
        """True where a step has several forwards, between which gradients are kept."""
        return self.recovery.batch_size > self.sequences

    @property
    def keeps_activations(self) -> bool:
        """True where a forward keeps all that the backward needs; else each block is computed again."""
        kept = kept_activation_bytes(self.description, self.recovery)
        return self.trains_weights and kept <= self.activation_budget_bytes


def training_peak(model: TrainedModel) -> int:
    """Return the peak of training: while the loss is taken, on the way back, or when a step is taken."""
    ledger, block = Ledger(), BlockShape.of(model.description)
    gradients = FLOAT * model.trained
    with ledger.holding(_throughout(model)):
        ledger.reach(gradients)
        with ledger.holding(gradients if model.accumulates else 0):
            _forward_and_back(ledger, model, block)
    return ceil(ledger.peak * _SMALL_TENSORS)


def _throughout(model: TrainedModel) -> int:
    """Return the bytes of weights, zeros, moments and a teacher with what is kept of its predictions."""
    zeros = model.prunable if model.holds_zeros and model.trains_weights else 0
    held = model.parameters * model.stored_bytes + zeros + 2 * FLOAT * model.trained
    info, recovery = RECOVERIES[model.recovery.method], model.recovery
    if info.learns_from_model:
        held += model.description.parameters * model.frozen_bytes
    return held


def _forward_and_back(ledger: Ledger, model: TrainedModel, block: BlockShape) -> None:
    """Account for a forward and its backward: from the last block to the first, gradients take activations' place."""
    layers, D = model.description.layers, model.description.hidden_size
    block_bytes, stream = _kept_of_block(model, block), model.stored_bytes * D * model.tokens
    held = block_bytes if model.keeps_activations else stream
    again = 0 if model.keeps_activations else block_bytes
    share = model.trained - (model.embeddings if model.trains_weights and model.recovery.train_embeddings else 0)
    of_block = 0 if model.accumulates else FLOAT * share / layers
    normed = (stream + 2 * FLOAT * D * model.tokens)
    with ledger.holding(layers * held + normed):
        _loss(ledger, model)
    passing = _passing_back(model, block)
    for left in (layers, 1):
        with ledger.holding(left * held + (layers - left) * of_block):
            ledger.reach(again + passing)


def _kept_of_block(model: TrainedModel, block: BlockShape) -> int:
    """Return the bytes that a block's forward keeps for its backward."""
    D, s = block.hidden_size, model.stored_bytes
    c = 2 if model.is_mixed else FLOAT
    values, weights = 0, 0
    for group in block.groups:
        values += c * group.kept
        if group.is_added:  # the stream, as a norm reads it and makes of it
            values += D * (2 * FLOAT if model.trains_weights else s + (FLOAT if s < FLOAT else 0))
        else:
            copies = len(group.sizes) if model.is_mixed and s == FLOAT else 1
            values += c * D * copies
    if model.trains_weights:
        weights = 2 * block.weights if model.is_mixed else 0
    else:
        weights = (c + 1) * block.weights
    return values * model.tokens + weights


def _passing_back(model: TrainedModel, block: BlockShape) -> int:
    """Return the bytes of gradients on their way through a block, and of the largest weight's."""
    c = 2 if model.is_mixed else FLOAT
    largest = max(size for group in block.groups for size in group.sizes)
    widest = max(group.inputs for group in block.groups)
    tokens = model.tokens * (FLOAT * block.hidden_size + 2 * c * widest)
    return tokens + largest * (2 * FLOAT if not model.trains_weights else c)


def _loss(ledger: Ledger, model: TrainedModel) -> None:
    """Account for the logits, the loss and their gradients."""
    description, c = model.description, 2 if model.is_mixed else FLOAT
    V, D = description.vocabulary_size, description.hidden_size
    logits = model.tokens * V
    ledger.reach(3 * FLOAT * logits)
    trains_head = model.trains_weights and model.recovery.train_embeddings
    ledger.reach(2 * FLOAT * logits)
    if trains_head:
        ledger.reach((FLOAT + c) * V * D + c * logits)
