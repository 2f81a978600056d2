"""Mathematics of methods: the classes of a method's module `method`, loaded when a process with torch asks for them.

A class is found by the protocol it implements, so that a method may have one for each kind of pass.
"""

from core import methods
from core.discovery import classes
from core.engine.options.base import MethodParameters
from core.engine.options.layer_selection import LayerSelection
from core.engine.pruning.layerwise.classifier_pass import OneShot
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.protocols.units import BlockUnitMethod, UnitMethod


def build_method(method_id: str, parameters: LayerSelection) -> Method:
    """Build the implementation of a method that prunes linear layers by the statistics of their inputs."""
    for each in classes(methods, method_id, "method"):
        if issubclass(each, Method):
            return each(parameters)
    raise _missing(method_id, Method)


def build_unit_method(method_id: str, parameters: MethodParameters) -> UnitMethod | BlockUnitMethod:
    """Build the implementation of a method that removes heads, channels or layers."""
    for each in classes(methods, method_id, "method"):
        if issubclass(each, UnitMethod | BlockUnitMethod):
            return each(parameters)
    raise _missing(method_id, UnitMethod)


def build_classifier_method(method_id: str, parameters: MethodParameters) -> ClassifierMethod:
    """Build the implementation of a method for image classifiers: its own, or the layer-wise one on their layers."""
    own = list(classes(methods, method_id, "method"))
    for each in own:
        if issubclass(each, ClassifierMethod):
            return each(parameters)
    for each in own:
        if issubclass(each, Method) and isinstance(parameters, LayerSelection):
            return OneShot(each(parameters), parameters)
    raise _missing(method_id, ClassifierMethod)


def _missing(method_id: str, protocol: type) -> LookupError:
    return LookupError(f"method {method_id!r}: its module `method` has no class that is a {protocol.__name__}")
