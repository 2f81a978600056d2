"""Loading of the implementations of methods, which need torch."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from core.engine.options.axes import MethodParameters
from core.engine.pruning.layerwise.classifier_pass import OneShot
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.pruning.solver import Solver
from core.engine.removals.weights import selection_of
from core.methods.registry import CLASSES


def build_method(method_id: str, parameters: MethodParameters, protocols: Sequence[type[Any]]) -> Any:
    """Build a method's implementation: the class for the first of these protocols that the method implements."""
    places = (place.rpartition(".") for place in CLASSES[method_id])
    classes = [getattr(import_module(module), name) for module, _, name in places]
    implementations = (each for protocol in protocols for each in classes if issubclass(each, protocol))
    return next(implementations)(parameters)


def build_classifier_method(method_id: str, parameters: MethodParameters) -> ClassifierMethod:
    """Build a method's implementation for image classifiers: its own class, or its solver, layer by layer."""
    implementation = build_method(method_id, parameters, (ClassifierMethod, Solver))
    if isinstance(implementation, Solver):
        return OneShot(implementation, selection_of(parameters))
    assert isinstance(implementation, ClassifierMethod)
    return implementation
