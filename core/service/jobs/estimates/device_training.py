"""Account of the bytes that a device of its own memory holds while a language model is trained.

It follows `core.engine.recovery`: weights, zeros, moments and a teacher are there throughout, gradients from a backward
pass to the step; what a forward keeps for its backward, and the logits, come and go.

Letters: D is the hidden size, V the vocabulary, T the tokens of a forward.
"""

from dataclasses import dataclass

from core.device_kinds import DeviceKind
from core.engine.architectures.block_shape import BlockShape, GroupShape
from core.engine.architectures.description import ModelDescription
from core.engine.recovery.activations import kept_activation_bytes
from core.engine.recovery.registry import RECOVERIES
from core.engine.recovery.request import Recovery, sequences_at_once
from core.methods.cost import FLOAT
from core.service.jobs.estimates.ledger import Ledger
from core.service.jobs.estimates.mixtures import expert_parameters

_ROWS_BYTES = 2**22
"""Most bytes of the rows of logits that a divergence works on together."""
_ROW_COPIES = 3
"""Copies of these rows: both models' logarithms of probabilities, and probabilities or what the latter are made of."""
_UPDATE_BYTES = 8
"""Bytes of a weight whose update by adapters is made, or its gradient, beside those that are kept."""


@dataclass(frozen=True)
class KeptValues:
    """Values that a forward of `tokens` tokens keeps for its backward pass.

    `stream` is the number of bytes of a value in the residual stream, `inner` of a value between linear layers. If
    `inner` is smaller (autocast), each layer that reads the stream keeps its own cast of it. A norm keeps its input in
    float32, and its output too if it is trained (`trains_norms`). With adapters beside frozen weights (`has_adapters`)
    each layer keeps its adapter's input, and one byte a value for the mask of dropout.
    """

    tokens: int
    stream: int
    inner: int
    trains_norms: bool = False
    has_adapters: bool = False

    def of_group(self, hidden_size: int, group: GroupShape) -> int:
        """Return the bytes of a group's values. The norm before a sublayer counts with the first group."""
        values = self.inner * group.kept
        if self.has_adapters:
            values += (self.inner + 1) * group.inputs * len(group.sizes)
        if group.is_added:  # a frozen weight does not need its input
            values -= self.inner * min(group.inputs, group.kept - group.inputs) * self.has_adapters
            return self.tokens * values
        values += hidden_size * FLOAT * (1 + self.trains_norms)
        if not self.has_adapters:
            values += hidden_size * self.inner * (len(group.sizes) if self.inner < self.stream else 1)
        return self.tokens * values

    def of_block(self, block: BlockShape) -> int:
        """Return the bytes of a block's values."""
        return sum(self.of_group(block.hidden_size, group) for group in block.groups)

    def account_backward(self, ledger: Ledger, block: BlockShape, gradient_bytes: float) -> None:
        """Account for the backward pass of a block: group by group, gradients of weights replace kept values."""
        left, done = self.of_block(block), 0.0
        for group in reversed(block.groups):
            done += gradient_bytes * group.weights
            ledger.reach(left + done + self.tokens * self.inner * (group.passing_back + block.hidden_size))
            left -= self.of_group(block.hidden_size, group)


@dataclass(frozen=True)
class TrainedModel:
    """A model that is trained on a device, and how.

    `holds_zeros`: some of its weights are zero and stay so. `teacher` are the parameters of the model it learns from,
    where it learns from one.
    """

    description: ModelDescription
    recovery: Recovery
    device: DeviceKind
    activation_budget_bytes: int = 0
    holds_zeros: bool = False
    teacher: int = 0

    @property
    def prunable(self) -> int:
        """Weights of the blocks' linear layers but experts, which are not trained."""
        return max(0, self.description.prunable_parameters - expert_parameters(self.description))

    @property
    def head(self) -> int:
        """Weights of the output head."""
        return self.description.vocabulary_size * self.description.hidden_size

    @property
    def trains_weights(self) -> bool:
        """True where the weights themselves are trained, and no adapters."""
        return self.recovery.lora is None

    @property
    def trains_head(self) -> bool:
        return self.trains_weights and bool(self.recovery.train_embeddings)

    @property
    def is_mixed(self) -> bool:
        """True where forwards compute in bfloat16, by autocast."""
        return self.device.prefers_16_bit and self.description.dtype != "float32"

    @property
    def frozen_bytes(self) -> int:
        """Bytes of a weight of a teacher, or of a frozen weight beside adapters."""
        return 2 if self.is_mixed and self.description.dtype == "bfloat16" else FLOAT

    @property
    def stored_bytes(self) -> int:
        """Bytes of a weight as it is held, and of a value of the residual stream."""
        return FLOAT if self.trains_weights else self.frozen_bytes

    @property
    def trained(self) -> int:
        """Parameters that are trained."""
        description, lora = self.description, self.recovery.lora
        if lora is None:
            ends = self.head * (1 if description.tied_embeddings else 2)
            frozen = expert_parameters(description) + description.other_module_parameters
            return max(0, description.parameters - frozen - (0 if self.trains_head else ends))
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
        """True where a step has several forwards, between which gradients stay."""
        return self.recovery.batch_size > self.sequences

    @property
    def matched_bytes(self) -> int:
        """Bytes of matched hidden states: the teacher's, their differences, and one block's squared differences."""
        if not self.recovery.hidden_states:
            return 0
        states = self.tokens * self.description.hidden_size
        return states * (self.description.layers * (self.frozen_bytes + FLOAT) + 2 * FLOAT)

    @property
    def keeps_activations(self) -> bool:
        """True where a forward keeps all that its backward needs; else each block is computed again."""
        kept = kept_activation_bytes(self.description, self.recovery)
        return self.trains_weights and kept <= self.activation_budget_bytes

    @property
    def kept_values(self) -> KeptValues:
        """Values that a block's forward keeps. Adapters' updates of weights with zeros are added outside autocast."""
        is_cast = self.is_mixed and (self.trains_weights or not self.holds_zeros)
        return KeptValues(
            self.tokens,
            self.stored_bytes,
            2 if is_cast else self.stored_bytes,
            trains_norms=self.trains_weights,
            has_adapters=not self.trains_weights and not self.holds_zeros,
        )


def training_peak(model: TrainedModel) -> int:
    """Return the peak of training by itself."""
    ledger = Ledger()
    account_training(ledger, model)
    return ledger.estimate


def account_training(ledger: Ledger, model: TrainedModel, *, copies: int = 0, scoring: int = 0) -> None:
    """Account for training; the peak is at the loss, in the backward pass or at the optimiser's step.

    `copies` are bytes that a method holds throughout if it trains in order to choose weights. `scoring` are bytes that
    it takes for a moment before the step.
    """
    gradients = FLOAT * model.trained
    # A second gradient of the embedding is added to that of the head, or to the one of the forward before.
    again = FLOAT * model.head if model.trains_head and (model.accumulates or model.description.tied_embeddings) else 0
    with ledger.holding(_throughout(model) + copies):
        ledger.reach(gradients + max(scoring, again))
        with ledger.holding((gradients if model.accumulates else 0) + model.matched_bytes):
            _forward_and_back(ledger, model, BlockShape.of(model.description))


def _throughout(model: TrainedModel) -> int:
    """Return the bytes of weights, zeros, moments and a teacher with what is kept of its predictions."""
    recovery, info = model.recovery, RECOVERIES[model.recovery.method]
    total = model.description.parameters * model.stored_bytes + 2 * FLOAT * model.trained
    if not model.trains_weights:
        total += FLOAT * model.trained
    elif model.holds_zeros:
        total += model.prunable
    if info.learns_from_model:
        total += model.teacher * model.frozen_bytes
        if not recovery.hidden_states:  # with these, predictions are not kept
            total += info.kept_bytes(recovery.steps * recovery.batch_size, recovery.sequence_length or 0)
    return total


def _forward_and_back(ledger: Ledger, model: TrainedModel, block: BlockShape) -> None:
    """Account for a forward and its backward pass, in which gradients replace activations from the last block on.

    With gradient checkpointing the forward keeps the input of each block, and the values of one block at a time. Casts
    of trained weights (autocast) are held to the end of the forward, or of the backward pass if that reads them.
    """
    layers, kept = model.description.layers, model.kept_values
    stream = model.stored_bytes * model.description.hidden_size * model.tokens
    is_cast = model.is_mixed and model.trains_weights
    weights = _computed_weights(model, block)
    of_each = kept.of_block(block) + weights if model.keeps_activations else stream
    head = 2 * model.head if is_cast else 0
    with ledger.holding(layers * of_each + 3 * stream + head):
        ledger.reach(2 * model.prunable if is_cast and not model.keeps_activations else 0)
        _account_loss(ledger, model)
    done = FLOAT * block.weights if model.trains_weights and not model.accumulates else 0
    with ledger.holding(FLOAT * model.head if model.trains_head and not model.accumulates else 0):
        for left in (layers, 1):
            others = (left - 1) * of_each if model.keeps_activations else left * of_each
            with ledger.holding(others + weights + (layers - left) * done + _updating(model, block)):
                kept.account_backward(ledger, block, FLOAT if done else 0)


def _computed_weights(model: TrainedModel, block: BlockShape) -> int:
    """Return the bytes of a block's weights in the dtype of the forward, and of the masks of their updates."""
    if model.trains_weights:
        return 2 * block.weights if model.is_mixed else 0
    return (model.stored_bytes + 1) * block.weights if model.holds_zeros else 0


def _updating(model: TrainedModel, block: BlockShape) -> int:
    """Return the bytes that a layer's adapters take for a moment: the weight's update, or copies of the inputs.

    Where the weights themselves are trained, this is one further gradient.
    """
    if model.trains_weights:
        return FLOAT * block.largest if model.accumulates else 0
    return _UPDATE_BYTES * block.largest if model.holds_zeros else 2 * FLOAT * model.tokens * block.hidden_size


def _account_loss(ledger: Ledger, model: TrainedModel) -> None:
    """Account for the logits in float32, the loss, and their gradients.

    The forward holds the logits, the logits without the last position of each sequence, and the log-probabilities. The
    backward pass holds the log-probabilities, their gradient and the gradient of the loss. A divergence holds the
    teacher's logits and the gradient.
    """
    logits, inner = model.tokens * model.description.vocabulary_size, 2 if model.is_mixed else FLOAT
    if RECOVERIES[model.recovery.method].learns_from_model:
        rows = _ROW_COPIES * min(FLOAT * logits, _ROWS_BYTES)
        ledger.reach((model.frozen_bytes + 2 * FLOAT) * logits + rows)
    else:
        ledger.reach(3 * FLOAT * logits)
    if model.trains_head:
        ledger.reach(inner * logits + (FLOAT + (inner if inner < FLOAT else 0)) * model.head)
