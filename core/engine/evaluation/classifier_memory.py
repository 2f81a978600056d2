"""Memory of forwards through image classifiers: for measuring, checking and timing. Without torch.

Bytes do not include the weights of the model that is loaded anyway.
"""

from core.engine.architectures.classifier_passes import ClassifierPasses

MEASURED_AT_ONCE = 128
"""Images per forward when accuracy or loss is measured, or a calibration set is passed over."""
CHECKED_AT_ONCE = 32
"""Images per forward when a saved model is checked."""
TIMED_AT_ONCE = (1, 32)
"""Images per forward when models are timed."""
_FLOAT = 4


def measuring_bytes(passes: ClassifierPasses, classes: int, images: int = MEASURED_AT_ONCE) -> int:
    """Return the bytes for measuring accuracy or loss on this many images, or more.

    Logits of one batch are still in memory while the next one passes.
    """
    at_once = min(images, MEASURED_AT_ONCE)
    return at_once * _FLOAT * classes + passes.evaluation.of(at_once)


def checking_bytes(passes: ClassifierPasses) -> int:
    """Return the bytes for checking a saved model, itself included: it is opened twice, one after the other."""
    return passes.weights + passes.evaluation.of(CHECKED_AT_ONCE)


def timing_bytes(passes: ClassifierPasses, other_weights: int) -> int:
    """Return the bytes for timing a model against one of at most `other_weights` bytes, both included."""
    images = max(TIMED_AT_ONCE)
    return passes.weights + other_weights + images * passes.image + passes.evaluation.of(images)
