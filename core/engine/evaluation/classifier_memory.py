"""Memory that forwards through image classifiers take: measured, checked, and timed in turn. Without torch.

Bytes are those beside the weights of the model that is there anyway.
"""

from core.engine.architectures.classifier_passes import ClassifierPasses

MEASURED_AT_ONCE = 128
"""Images of a forward that measures accuracy or loss, or passes over a calibration set."""
CHECKED_AT_ONCE = 32
"""Images of a forward that checks a saved model."""
TIMED_AT_ONCE = (1, 32)
"""Images of the forwards that are timed."""
_FLOAT = 4


def measuring_bytes(passes: ClassifierPasses, classes: int, images: int = MEASURED_AT_ONCE) -> int:
    """Return the bytes in which accuracy or loss is measured on so many images, or more.

    Logits of one batch are still there while the next passes.
    """
    at_once = min(images, MEASURED_AT_ONCE)
    return at_once * _FLOAT * classes + passes.evaluation.of(at_once)


def checking_bytes(passes: ClassifierPasses) -> int:
    """Return the bytes in which a saved model is checked, itself among them: opened twice, one after the other."""
    return passes.weights + passes.evaluation.of(CHECKED_AT_ONCE)


def timing_bytes(passes: ClassifierPasses, other_weights: int) -> int:
    """Return the bytes in which a model and one of at most `other_weights` bytes are timed in turn, both among them."""
    images = max(TIMED_AT_ONCE)
    return passes.weights + other_weights + images * passes.image + passes.evaluation.of(images)
