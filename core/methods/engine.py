"""Loading of the implementations of methods, which need torch."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from core.engine.options.axes import MethodParameters
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.removals.run import classifier_run
from core.methods.registry import CLASSES, get_method


def build_method(method_id: str, parameters: MethodParameters, protocols: Sequence[type[Any]]) -> Any:
    """Build a method's implementation: the class for the first of these protocols that the method implements."""
    places = (place.rpartition(".") for place in CLASSES[method_id])
    classes = [getattr(import_module(module), name) for module, _, name in places]
    implementations = (each for protocol in protocols for each in classes if issubclass(each, protocol))
    return next(implementations)(parameters)


def build_classifier_method(
    method_id: str, parameters: MethodParameters, pattern: str | None = None
) -> ClassifierMethod:
    """Build a method's implementation for image classifiers; without a pattern, for the method's default pattern."""
    removal = get_method(method_id).variant(pattern).removal
    assert removal is not None
    run = classifier_run(removal)
    return run.method(build_method(method_id, parameters, run.protocols), parameters)
