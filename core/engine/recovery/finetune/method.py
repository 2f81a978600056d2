"""Fine-tuning of every parameter, pruned weights kept at zero, on the texts or the labels themselves."""

from torch import nn

from core.engine.datasets.image_set import ImageSet
from core.engine.recovery.losses import Loss, labelled_loss, next_token_loss
from core.engine.recovery.protocols import ClassifierRecovery, LanguageRecovery, OpenedModel, Trainable
from core.engine.recovery.request import Recovery
from core.engine.recovery.trainable import every_parameter


class FineTuning(LanguageRecovery, ClassifierRecovery):
    """Training of every parameter by the mean cross-entropy: of each token given those before it, or of labels."""

    def prepare(self, opened: OpenedModel) -> Trainable:
        return every_parameter(opened)

    def loss(self, opened: OpenedModel) -> Loss:
        return next_token_loss

    def image_loss(self, images: ImageSet, recovery: Recovery, teacher: nn.Module | None) -> Loss:
        return labelled_loss(images)
