"""Distillation (Hinton 2015, arXiv:1503.02531, section 2): a teacher's predictions at a temperature T are learnt.

The loss is T² · KL(teacher ‖ student), whose gradient is about as large at every temperature.
"""

import torch
from torch import Tensor, nn

from core.engine.datasets.image_set import ImageSet
from core.engine.models.loading import load_model
from core.engine.recovery.distill.divergence import divergence
from core.engine.recovery.distill.predictions import Predictions, are_kept
from core.engine.recovery.losses import Loss, image_logits
from core.engine.recovery.protocols import ClassifierRecovery, LanguageRecovery, OpenedModel, Trainable
from core.engine.recovery.request import Recovery
from core.engine.recovery.trainable import all_but_embeddings, every_parameter, low_rank_adapters
from core.errors import InvalidRequest

_TEACHER = "recovery.teacher"


class Distillation(LanguageRecovery, ClassifierRecovery):
    """Training of adapters or, where there are none, of the weights, against a teacher's predictions."""

    def prepare(self, opened: OpenedModel) -> Trainable:
        if opened.recovery.lora is not None:
            return low_rank_adapters(opened)
        return every_parameter(opened) if opened.recovery.train_embeddings else all_but_embeddings(opened)

    def loss(self, opened: OpenedModel) -> Loss:
        """Return the loss of the next token's distribution: the mean over all positions, in nats."""
        temperature = opened.recovery.temperature
        assert temperature is not None
        sequences, length = opened.windows
        uses = opened.recovery.steps * opened.recovery.batch_size
        predictions = Predictions(_open_teacher(opened), temperature, keeps=are_kept(sequences, length, uses))

        def loss(model: nn.Module, tokens_BT: Tensor) -> Tensor:
            wanted = predictions.of(tokens_BT)
            logits_BTV: Tensor = model(input_ids=tokens_BT, use_cache=False).logits
            return divergence(logits_BTV.flatten(0, 1), wanted, temperature)

        return loss

    def image_loss(self, images: ImageSet, recovery: Recovery, teacher: nn.Module | None) -> Loss:
        """Return the loss of the classes' distribution: the mean over all images, in nats."""
        assert teacher is not None, "nothing to learn from"
        temperature = recovery.temperature or 1.0

        def loss(model: nn.Module, numbers_B1: Tensor) -> Tensor:
            numbers_B, device = numbers_B1[:, 0].cpu(), numbers_B1.device
            with torch.no_grad():
                wanted_BK = image_logits(teacher, images, numbers_B, device)
            return divergence(image_logits(model, images, numbers_B, device), wanted_BK, temperature)

        return loss


def _open_teacher(opened: OpenedModel) -> nn.Module:
    """Load the model to learn from; raises InvalidRequest where there is none, or one with another vocabulary."""
    if opened.teacher is None:
        raise InvalidRequest("recovery.teacher is required: distill needs a model to learn from", param=_TEACHER)
    words, own = opened.teacher.folder.description.vocabulary_size, opened.folder.description.vocabulary_size
    if words != own:
        raise InvalidRequest(
            f"recovery.teacher has a vocabulary of {words}, the model one of {own}: distill compares word by word",
            param=_TEACHER,
        )
    teacher = load_model(opened.teacher.folder, opened.device, dtype=opened.frozen_dtype)
    teacher.requires_grad_(False)
    return teacher
