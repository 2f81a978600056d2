"""One short file per published method, composed of the parts beside this folder, and bound to the catalogue by id."""

from core.catalogue.parameters import Selection
from core.pruning.methods.magnitude import Magnitude
from core.pruning.methods.method import Method
from core.pruning.methods.random import Random
from core.pruning.methods.recover import Recover
from core.pruning.methods.sparsegpt import SparseGPT
from core.pruning.methods.wanda import Wanda

IMPLEMENTATIONS: dict[str, type[Method]] = {
    "magnitude": Magnitude,
    "random": Random,
    "recover": Recover,
    "sparsegpt": SparseGPT,
    "wanda": Wanda,
}


def build_method(method_id: str, parameters: Selection) -> Method:
    """The engine's implementation of a catalogue entry with its parameters."""
    return IMPLEMENTATIONS[method_id](parameters)


__all__ = ["IMPLEMENTATIONS", "Method", "build_method"]
