"""Formula for the memory, disk and operations of recovery, from the model's headers and the recipe alone."""

from dataclasses import dataclass

from core.device_kinds import DeviceKind
from core.engine.architectures.description import ModelDescription
from core.engine.recovery.registry import RECOVERIES
from core.engine.recovery.request import Recovery, sequences_at_once

_TRAINED_BYTES = 16
"""Bytes of a trained parameter: itself, its gradient and two moments, in float32."""
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


def training_work(description: ModelDescription, recovery: Recovery | None) -> TrainingWork:
    """Return the tokens and operations of training.

    They are of a forward, a second one (activations are not kept), a backward of twice as many, and a teacher's
    forward.
    """
    if recovery is None:
        return TrainingWork()
    tokens = recovery.steps * recovery.batch_size * (recovery.sequence_length or 0)
    head = description.hidden_size * description.vocabulary_size
    passes = 4 + RECOVERIES[recovery.method].learns_from_model
    return TrainingWork(tokens, 2 * tokens * passes * (description.prunable_parameters + head))


def training_bytes(description: ModelDescription, recovery: Recovery | None, *, device: DeviceKind) -> TrainingBytes:
    """Return the bytes that training takes.

    They are of weights, gradients, optimiser, one block's activations, the inputs of every block, logits, and a
    teacher.
    """
    if recovery is None:
        return TrainingBytes()
    blocks = [linear for linear in description.linears if linear.layer == 0]
    tokens = sequences_at_once(recovery) * (recovery.sequence_length or 0)
    frozen = 2 if device.prefers_16_bit and description.dtype == "bfloat16" else 4
    if recovery.lora is None:
        trained, weights = description.parameters, description.prunable_parameters  # the zeros: a byte a weight
    else:
        adapted = [each for each in description.linears if each.matches(recovery.lora.targets or ["*"])]
        trained = recovery.lora.r * sum(each.in_features + each.out_features for each in adapted)
        # Weight and update are added in float32, and both are kept for the way back.
        weights = description.parameters * frozen + 3 * 4 * sum(each.numel for each in blocks)
    info = RECOVERIES[recovery.method]
    teacher = description.parameters * frozen if info.learns_from_model else 0
    width = 6 * description.hidden_size + 3 * max(each.out_features for each in blocks)
    activations = 4 * tokens * (description.layers * description.hidden_size + 2 * width)
    logits = 4 * info.logit_copies * tokens * description.vocabulary_size
    saved = _SAVED_BYTES * trained
    return TrainingBytes(
        memory=weights + _TRAINED_BYTES * trained + teacher + activations + logits,
        disk=2 * description.bytes + 2 * saved,  # the pruned model and the trained tensors; the newest two checkpoints
        checkpoint=saved,
    )
