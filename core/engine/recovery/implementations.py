"""Implementations of recoveries: the classes of a recovery's module `method`, loaded when a process has torch.

A class is found by the protocol it implements, so that a recovery may have one for each kind of model.
"""

from core.discovery import require_class
from core.engine import recovery
from core.engine.recovery.protocols import ClassifierRecovery, LanguageRecovery


def language_recovery(recovery_id: str) -> LanguageRecovery:
    """Return the implementation of a recovery for language models."""
    return require_class(recovery, recovery_id, "method", LanguageRecovery)()


def classifier_recovery(recovery_id: str) -> ClassifierRecovery:
    """Return the implementation of a recovery for image classifiers."""
    return require_class(recovery, recovery_id, "method", ClassifierRecovery)()
