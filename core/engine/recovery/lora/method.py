"""LoRA (Hu 2021, arXiv:2106.09685) on a model with zeros, merged at the end."""

from core.engine.recovery.losses import Loss, next_token_loss
from core.engine.recovery.protocols import LanguageRecovery, OpenedModel, Trainable
from core.engine.recovery.trainable import low_rank_adapters


class LowRankAdaptation(LanguageRecovery):
    """Training of low-rank adapters by the mean cross-entropy of each token given those before it."""

    def prepare(self, opened: OpenedModel) -> Trainable:
        return low_rank_adapters(opened)

    def loss(self, opened: OpenedModel) -> Loss:
        return next_token_loss
