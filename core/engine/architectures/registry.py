"""Registry of architectures: those of the modules of `overrides`, each by the name of its class in transformers."""

from collections.abc import Iterator
from typing import Final

from core.discovery import declared
from core.engine.architectures import overrides
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.classifier_architecture import ClassifierArchitecture
from core.errors import UnsupportedArchitecture

_DECLARED: Iterator[Architecture | ClassifierArchitecture] = declared(overrides, "ARCHITECTURE")
_ORDERED = sorted(_DECLARED, key=lambda each: each.order)
LANGUAGE_ARCHITECTURES: Final = {each.architecture: each for each in _ORDERED if isinstance(each, Architecture)}
CLASSIFIER_ARCHITECTURES: Final = {
    each.architecture: each for each in _ORDERED if isinstance(each, ClassifierArchitecture)
}


def architecture_for(names: list[str], discovered: Architecture | None = None) -> Architecture:
    """Return the architecture of a config's `architectures`: the declared one, else the discovered one.

    Raises UnsupportedArchitecture, naming those declared, where there is neither.
    """
    for name in names:
        if name in LANGUAGE_ARCHITECTURES:
            return LANGUAGE_ARCHITECTURES[name]
    if discovered is not None and discovered.architecture in names:
        return discovered
    named = ", ".join(repr(each[:100]) for each in names[:5]) or "none named in config.json"
    known: list[Architecture | ClassifierArchitecture] = [
        *LANGUAGE_ARCHITECTURES.values(),
        *CLASSIFIER_ARCHITECTURES.values(),
    ]
    supported = ", ".join(f"{each.title} ({each.architecture})" for each in known)
    raise UnsupportedArchitecture(f"architecture {named} is not supported; supported: {supported}", param="model")
