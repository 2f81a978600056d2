"""Implementations of recoveries: the classes of a recovery's module `method`, loaded when a process has torch.

A class is found by the protocol it implements, so that a recovery may have one for each kind of model.
"""

from core.discovery import classes
from core.engine import recovery
from core.engine.recovery.protocols import ClassifierRecovery, LanguageRecovery


def language_recovery(recovery_id: str) -> LanguageRecovery:
    """Return what a recovery does with a language model."""
    for each in classes(recovery, recovery_id, "method"):
        if issubclass(each, LanguageRecovery):
            return each()
    raise _missing(recovery_id, LanguageRecovery)


def classifier_recovery(recovery_id: str) -> ClassifierRecovery:
    """Return what a recovery does with an image classifier."""
    for each in classes(recovery, recovery_id, "method"):
        if issubclass(each, ClassifierRecovery):
            return each()
    raise _missing(recovery_id, ClassifierRecovery)


def _missing(recovery_id: str, protocol: type) -> LookupError:
    return LookupError(f"recovery {recovery_id!r}: its module `method` has no class that is a {protocol.__name__}")
