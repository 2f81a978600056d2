"""Registry of architectures: those of the modules of `overrides`, each by the name of its class in transformers."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from core.engine.architectures import overrides
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.classifier_architecture import ClassifierArchitecture
from core.errors import UnsupportedArchitecture


def _declared() -> Iterator[Architecture | ClassifierArchitecture]:
    """Yield the architecture of every module of `overrides`."""
    for module in iter_modules(overrides.__path__, f"{overrides.__name__}."):
        yield import_module(module.name).ARCHITECTURE


_ORDERED = sorted(_declared(), key=lambda each: each.order)
LANGUAGE_ARCHITECTURES: Final = {each.architecture: each for each in _ORDERED if isinstance(each, Architecture)}
CLASSIFIER_ARCHITECTURES: Final = {
    each.architecture: each for each in _ORDERED if isinstance(each, ClassifierArchitecture)
}


def architecture_for(names: list[str]) -> Architecture:
    """Return the architecture of a config's `architectures`; raises UnsupportedArchitecture naming those supported."""
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
