"""Registry of declared architectures: the modules of `overrides`, by the name of their class in transformers."""

from collections.abc import Iterator
from typing import Final

from core.discovery import declared
from core.engine.architectures import overrides
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.classifier_architecture import ClassifierArchitecture
from secateur_wire.errors import UnsupportedArchitecture

_DECLARED: Iterator[Architecture | ClassifierArchitecture] = declared(overrides, "ARCHITECTURE")
_ORDERED = sorted(_DECLARED, key=lambda each: each.order)
LANGUAGE_ARCHITECTURES: Final = {each.architecture: each for each in _ORDERED if isinstance(each, Architecture)}
CLASSIFIER_ARCHITECTURES: Final = {
    each.architecture: each for each in _ORDERED if isinstance(each, ClassifierArchitecture)
}


def declared_architecture(class_name: str, model_type: object) -> Architecture | None:
    """Return the architecture declared for a class and a config type; None where the class belongs to another type."""
    architecture = LANGUAGE_ARCHITECTURES.get(class_name)
    is_known = any(each.model_type == model_type for each in LANGUAGE_ARCHITECTURES.values())
    return architecture if is_known else None


def architecture_for(names: list[str], discovered: Architecture | None = None) -> Architecture:
    """Return the architecture of a config's `architectures`: the declared one, else the discovered one.

    Raises UnsupportedArchitecture, naming the declared ones, where there is neither.
    """
    if discovered is not None and discovered.architecture in names:
        return declared_architecture(discovered.architecture, discovered.model_type) or discovered
    for name in names:
        if name in LANGUAGE_ARCHITECTURES:
            return LANGUAGE_ARCHITECTURES[name]
    named = ", ".join(repr(each[:100]) for each in names[:5]) or "none named in config.json"
    known: list[Architecture | ClassifierArchitecture] = [
        *LANGUAGE_ARCHITECTURES.values(),
        *CLASSIFIER_ARCHITECTURES.values(),
    ]
    supported = ", ".join(f"{each.title} ({each.architecture})" for each in known)
    raise UnsupportedArchitecture(f"architecture {named} is not supported; supported: {supported}", param="model")
