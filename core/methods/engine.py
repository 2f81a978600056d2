"""Loading of the implementations of methods: the classes in each method's module `method`, which need torch.

A class is found by the protocol it implements, so that a method can have one class for each kind of pass.
"""

from collections.abc import Sequence
from typing import Any

from core import methods
from core.discovery import find_class, require_class
from core.engine.options.base import MethodParameters
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.removals.run import classifier_run
from core.methods.registry import get_method

_MODULE = "method"


def build_method(method_id: str, parameters: MethodParameters, protocols: Sequence[type[Any]]) -> Any:
    """Build a method's implementation: the class for the first of these protocols that the method implements."""
    preferred = (find_class(methods, method_id, _MODULE, each) for each in protocols[:-1])
    implementation = next(filter(None, preferred), None)
    return (implementation or require_class(methods, method_id, _MODULE, protocols[-1]))(parameters)


def build_classifier_method(
    method_id: str, parameters: MethodParameters, pattern: str | None = None
) -> ClassifierMethod:
    """Build a method's implementation for image classifiers; without a pattern, for the method's default pattern."""
    removal = get_method(method_id).variant(pattern).removal
    assert removal is not None
    run = classifier_run(removal)
    return run.method(build_method(method_id, parameters, run.protocols), parameters)
