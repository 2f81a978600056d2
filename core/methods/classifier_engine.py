"""The methods for image classifiers, one short file per published method, bound to the catalogue by id."""

from core.engine.options.base import MethodParameters
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.methods.filter_l1.method import FilterL1
from core.methods.filter_taylor.method import FilterTaylor
from core.methods.iterative_magnitude.method import IterativeMagnitude
from core.methods.obd.method import OBD
from core.methods.obs.whole_network import ClassifierOBS
from core.methods.one_shot import (
    ClassifierMagnitude,
    ClassifierRandom,
    ClassifierSparseGPT,
    ClassifierWanda,
)

CLASSIFIER_IMPLEMENTATIONS: dict[str, type[ClassifierMethod]] = {
    "iterative-magnitude": IterativeMagnitude,
    "magnitude": ClassifierMagnitude,
    "obd": OBD,
    "obs": ClassifierOBS,
    "random": ClassifierRandom,
    "sparsegpt": ClassifierSparseGPT,
    "wanda": ClassifierWanda,
    "filter-l1": FilterL1,
    "filter-taylor": FilterTaylor,
}


def build_classifier_method(method_id: str, parameters: MethodParameters) -> ClassifierMethod:
    """Build the engine's implementation of a catalogue entry for classifiers, with its parameters."""
    return CLASSIFIER_IMPLEMENTATIONS[method_id](parameters)


__all__ = ["CLASSIFIER_IMPLEMENTATIONS", "ClassifierMethod", "build_classifier_method"]
