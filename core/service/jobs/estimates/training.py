"""Formula for the memory, disk and operations of recovery, from the model's headers and the recipe alone."""

from dataclasses import dataclass

from core.device_kinds import DeviceKind
from core.engine.architectures.description import ModelDescription
from core.engine.recovery.activations import kept_activation_bytes
from core.engine.recovery.registry import RECOVERIES
from core.engine.recovery.request import Recovery, sequences_at_once
from core.service.jobs.estimates.device_training import TrainedModel, training_peak
from core.service.jobs.estimates.mixtures import active_parameters, expert_parameters

_TRAINED_BYTES = 16
"""Bytes of a trained parameter: itself, its gradient and two moments, in float32."""
_KEPT_AND_READ = 6
"""Bytes of an embedding that is not trained: in float32, and as it is read."""
_MATCHED_BYTES = 8
"""Bytes of an element of hidden states that are matched, in float32: the teacher's, and how far the model's are off."""
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
    blocks = [linear for linear in description.linears if linear.layer == 0]
    tokens = sequences_at_once(recovery) * (recovery.sequence_length or 0)
    frozen = 2 if device.prefers_16_bit and description.dtype == "bfloat16" else 4
    if recovery.lora is None:
        embeddings = 0 if recovery.train_embeddings else description.vocabulary_size * description.hidden_size
        embeddings *= 1 if description.tied_embeddings else 2
        experts = expert_parameters(description)
        trained = description.parameters - embeddings - experts
        weights = description.prunable_parameters - experts  # the zeros: a byte a weight
        weights += _KEPT_AND_READ * embeddings + 4 * experts
        weights += 0 if device.prefers_16_bit else 2 * description.parameters  # as they are read, where in bfloat16
    else:
        linears = (each for each in description.linears if each.experts is None)
        adapted = [each for each in linears if each.matches(recovery.lora.targets or ["*"])]
        trained = recovery.lora.r * sum(each.in_features + each.out_features for each in adapted)
        # Weight and update are added in float32, and both are kept for the way back.
        weights = description.parameters * frozen + 3 * 4 * sum(each.numel for each in blocks)
    info = RECOVERIES[recovery.method]
    states = _MATCHED_BYTES * tokens * description.layers * description.hidden_size
    learnt = states if recovery.hidden_states else info.most_kept_bytes
    teacher = description.parameters * frozen + learnt if info.learns_from_model else 0
    width = 6 * description.hidden_size + 3 * max(each.out_features for each in blocks)
    activations = 4 * tokens * (description.layers * description.hidden_size + 2 * width)
    kept = kept_activation_bytes(description, recovery)
    if recovery.lora is None and kept <= activation_budget_bytes:
        activations = max(activations, kept)
    logits = 4 * info.logit_copies * tokens * description.vocabulary_size
    saved = _SAVED_BYTES * trained
    peak = weights + _TRAINED_BYTES * trained + teacher + activations + logits
    if device.has_own_memory:
        model = TrainedModel(
            description if left is None else left,
            recovery,
            device,
            activation_budget_bytes,
            holds_zeros,
            teacher=description.parameters,
        )
        peak = training_peak(model)
    return TrainingBytes(
        memory=peak,
        disk=2 * description.bytes + 2 * saved,  # the pruned model and the trained tensors; the newest two checkpoints
        checkpoint=saved,
    )
