"""Mathematics of methods: the classes of a method's module `method`, loaded when a process with torch asks for them.

A class is found by the protocol it implements, so that a method may have one for each kind of pass.
"""

from core import methods
from core.discovery import find_class, require_class
from core.engine.options.base import MethodParameters
from core.engine.pruning.layerwise.classifier_pass import OneShot
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.protocols.units import BlockUnitMethod, UnitMethod
from core.engine.removals.weights.options import LayerSelection, selection_of

_MODULE = "method"


def build_method(method_id: str, parameters: LayerSelection) -> Method:
    """Build the implementation of a method that prunes linear layers by the statistics of their inputs."""
    return require_class(methods, method_id, _MODULE, Method)(parameters)


def build_unit_method(method_id: str, parameters: MethodParameters) -> UnitMethod | BlockUnitMethod:
    """Build the implementation of a method that removes heads, channels or layers."""
    by_block = find_class(methods, method_id, _MODULE, BlockUnitMethod)
    return by_block(parameters) if by_block else require_class(methods, method_id, _MODULE, UnitMethod)(parameters)


def build_classifier_method(method_id: str, parameters: MethodParameters) -> ClassifierMethod:
    """Build the implementation of a method for image classifiers: its own, or the layer-wise one on their layers."""
    own = find_class(methods, method_id, _MODULE, ClassifierMethod)
    layerwise = find_class(methods, method_id, _MODULE, Method)
    if own is None and layerwise is not None:
        selection = selection_of(parameters)
        return OneShot(layerwise(selection), selection)
    return require_class(methods, method_id, _MODULE, ClassifierMethod)(parameters)
