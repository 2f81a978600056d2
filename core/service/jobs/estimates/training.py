"""Formula for the memory, disk and operations of recovery, from the model's headers and the recipe alone."""

from dataclasses import dataclass, replace

from core.device_kinds import DeviceKind
from core.engine.architectures.description import ModelDescription
from core.engine.recovery.activations import kept_activation_bytes
from core.engine.recovery.registry import RECOVERIES
from core.engine.recovery.request import Recovery
from core.service.jobs.estimates.device_training import TrainedModel, training_peak
from core.service.jobs.estimates.mixtures import active_parameters, expert_parameters

_TRAINED_BYTES = 16
"""Bytes of a trained parameter: itself, its gradient and two moments, in float32."""
_KEPT_AND_READ = 6
"""Bytes of an embedding that is not trained: in float32, and as it is read."""
_SAVED_BYTES = 12
"""Bytes of a trained parameter in a checkpoint: itself and two moments."""


@dataclass(frozen=True)
class TrainingWork:
    """Tokens that pass through the model, and floating-point operations, over all steps."""

    tokens: int = 0
    operations: int = 0


@dataclass(frozen=True)
class TrainingBytes:
    """Bytes of training: `memory` peak where the model is; `disk` on the worker; `checkpoint` passes main memory."""

    memory: int = 0
    disk: int = 0
    checkpoint: int = 0


def training_work(description: ModelDescription, recovery: Recovery | None, *, device: DeviceKind) -> TrainingWork:
    """Return the tokens and operations of training.

    They are of a forward, a second one (as if activations were not kept), a backward of twice as many, and a teacher's
    forward (as if no prediction were kept); but no more than the device does in the minutes that were given.
    """
    if recovery is None:
        return TrainingWork()
    tokens = recovery.steps * recovery.batch_size * (recovery.sequence_length or 0)
    head = description.hidden_size * description.vocabulary_size
    passes = 4 + RECOVERIES[recovery.method].learns_from_model
    operations = 2 * tokens * passes * (active_parameters(description) + head)
    if recovery.minutes is not None:
        most = 60 * recovery.minutes * device.operations_per_second
        tokens, operations = int(tokens * min(1, most / operations)), int(min(operations, most))
    return TrainingWork(tokens, operations)


def training_bytes(
    description: ModelDescription,
    recovery: Recovery | None,
    *,
    device: DeviceKind,
    activation_budget_bytes: int = 0,
    holds_zeros: bool = True,
    left: ModelDescription | None = None,
) -> TrainingBytes:
    """Return the bytes that training takes.

    They are of weights, gradients, optimiser, activations, logits, a teacher, and what is kept of its predictions, or
    the hidden states that are matched. All activations are kept where they fit the budget, else one block's and the
    inputs of every block. On a device of its own memory there is an account of them, of the model that is `left` where
    units went; `holds_zeros`: some of its weights are zero.
    """
    if recovery is None:
        return TrainingBytes()
    model = TrainedModel(
        description, recovery, device, activation_budget_bytes, holds_zeros, teacher=description.parameters
    )
    trained = _trained_parameters(model)
    if device.has_own_memory:
        peak = training_peak(replace(model, description=left or description))
    else:
        peak = _peak_in_main_memory(model, trained)
    saved = _SAVED_BYTES * trained
    return TrainingBytes(
        memory=peak,
        disk=2 * description.bytes + 2 * saved,  # the pruned model and the trained tensors; the newest two checkpoints
        checkpoint=saved,
    )


def _trained_parameters(model: TrainedModel) -> int:
    """Return the largest number of trained parameters; modules beside the language model count too."""
    if not model.trains_weights:
        return model.trained
    return model.description.parameters - _frozen_embeddings(model) - expert_parameters(model.description)


def _frozen_embeddings(model: TrainedModel) -> int:
    return 0 if model.trains_head else model.head * (1 if model.description.tied_embeddings else 2)


def _peak_in_main_memory(model: TrainedModel, trained: int) -> int:
    description, recovery, info = model.description, model.recovery, RECOVERIES[model.recovery.method]
    blocks = [linear for linear in description.linears if linear.layer == 0]
    if model.trains_weights:
        experts = expert_parameters(description)
        weights = description.prunable_parameters - experts  # the zeros: a byte a weight
        weights += _KEPT_AND_READ * _frozen_embeddings(model) + 4 * experts
        weights += 0 if model.device.prefers_16_bit else 2 * description.parameters  # as read, where in bfloat16
    else:
        # Weight and update are added in float32, and both are kept for the way back.
        weights = description.parameters * model.frozen_bytes + 3 * 4 * sum(each.numel for each in blocks)
    learnt = model.matched_bytes if recovery.hidden_states else info.most_kept_bytes
    teacher = model.teacher * model.frozen_bytes + learnt if info.learns_from_model else 0
    width = 6 * description.hidden_size + 3 * max(each.out_features for each in blocks)
    activations = 4 * model.tokens * (description.layers * description.hidden_size + 2 * width)
    if model.keeps_activations:
        activations = max(activations, kept_activation_bytes(description, recovery))
    logits = 4 * info.logit_copies * model.tokens * description.vocabulary_size
    return weights + _TRAINED_BYTES * trained + teacher + activations + logits
