"""Distillation (Hinton 2015, arXiv:1503.02531, section 2): a teacher's predictions at a temperature T are learnt.

The loss is T² · KL(teacher ‖ student), whose gradient is about as large at every temperature. Where it is asked for,
that is averaged with the loss of what is right, as in the paper: the token that the text goes on with, or an image's
label; and the error of the hidden states behind the blocks is added, times a weight.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.engine.datasets.image_set import ImageSet
from core.engine.models.folder import ModelFolder
from core.engine.models.loading import load_model
from core.engine.recovery.completion import check_matching
from core.engine.recovery.distill.divergence import Labels, divergence
from core.engine.recovery.distill.hidden_states import matched_layers, mean_error, outputs_of
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
        """Return the loss of the next token's distribution and of the next token: means over all positions, in nats.

        With a weight of the hidden states, return that and their error times the weight. Their errors need the teacher
        in every step, so its predictions are not kept.
        """
        temperature, weight = opened.recovery.temperature, opened.recovery.hidden_states
        label_weight = opened.recovery.label_weight
        assert temperature is not None and weight is not None and label_weight is not None
        teacher_folder, teacher = _open_teacher(opened)
        sequences, length = opened.windows
        uses = opened.recovery.steps * opened.recovery.batch_size
        predictions = Predictions(teacher, temperature, keeps=not weight and are_kept(sequences, length, uses))

        def of_predictions(model: nn.Module, tokens_BT: Tensor) -> Tensor:
            wanted = predictions.of(tokens_BT)
            logits_BTV: Tensor = model(input_ids=tokens_BT, use_cache=False).logits
            labels = Labels(_next_tokens(tokens_BT).flatten(), label_weight) if label_weight else None
            return divergence(logits_BTV.flatten(0, 1), wanted, temperature, labels)

        if not weight:
            return of_predictions
        own, dense = _blocks(opened.folder, opened.model), _blocks(teacher_folder, teacher)
        matched = [dense[layer] for layer in matched_layers(len(dense), opened.removed_layers)]

        def of_both(model: nn.Module, tokens_BT: Tensor) -> Tensor:
            with outputs_of(own) as given, outputs_of(matched) as wanted:
                value = of_predictions(model, tokens_BT)
            return torch.stack([value, weight * mean_error(given, wanted)])

        return of_both

    def image_loss(self, images: ImageSet, recovery: Recovery, teacher: nn.Module | None) -> Loss:
        """Return the loss of the classes' distribution and of the labels: means over all images, in nats."""
        assert teacher is not None, "nothing to learn from"
        temperature, weight = recovery.temperature or 1.0, recovery.label_weight or 0.0

        def loss(model: nn.Module, numbers_B1: Tensor) -> Tensor:
            numbers_B, device = numbers_B1[:, 0].cpu(), numbers_B1.device
            with torch.no_grad():
                wanted_BK = image_logits(teacher, images, numbers_B, device)
            labels = Labels(images.labels_N[numbers_B].to(device), weight) if weight else None
            return divergence(image_logits(model, images, numbers_B, device), wanted_BK, temperature, labels)

        return loss


def _next_tokens(tokens_BT: Tensor) -> Tensor:
    """Return what each token goes on with, -1 for the last of a sequence."""
    return functional.pad(tokens_BT[:, 1:], (0, 1), value=-1)


def _open_teacher(opened: OpenedModel) -> tuple[ModelFolder, nn.Module]:
    """Load the model to learn from; raises InvalidRequest where there is none, or one that cannot be learnt from."""
    if opened.teacher is None:
        raise InvalidRequest("recovery.teacher is required: distill needs a model to learn from", param=_TEACHER)
    folder = opened.teacher.folder
    words, own = folder.description.vocabulary_size, opened.folder.description.vocabulary_size
    if words != own:
        raise InvalidRequest(
            f"recovery.teacher has a vocabulary of {words}, the model one of {own}: distill compares word by word",
            param=_TEACHER,
        )
    check_matching(opened.recovery, opened.folder.description, folder.description, opened.removed_layers)
    teacher = load_model(folder, opened.device, dtype=opened.frozen_dtype)
    teacher.requires_grad_(False)
    return folder, teacher


def _blocks(folder: ModelFolder, model: nn.Module) -> list[nn.Module]:
    return list(model.get_submodule(folder.family.blocks).children())
