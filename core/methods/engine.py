"""Methods: one short file per published method, composed of `core.engine.pruning` and bound to the catalogue by id.

The parts of one method alone lie beside it; what two methods share is the engine's. No job or database is known here.
"""

from core.engine.options.base import MethodParameters
from core.engine.options.layer_selection import Selection
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.protocols.units import StructuredMethod
from core.methods.admm.method import ADMM
from core.methods.bonsai.method import Bonsai
from core.methods.depth.method import Depth
from core.methods.l2_structured.method import L2Structured
from core.methods.llm_pruner.method import LLMPruner
from core.methods.loraprune.method import LoRAPrune
from core.methods.lorashear.method import LoRAShear
from core.methods.magnitude.method import Magnitude
from core.methods.obs.method import OBS
from core.methods.random.method import Random
from core.methods.random_structured.method import RandomStructured
from core.methods.recover.method import Recover
from core.methods.sparsegpt.method import SparseGPT
from core.methods.wanda.method import Wanda

IMPLEMENTATIONS: dict[str, type[Method]] = {
    "admm": ADMM,
    "frontier": ADMM,
    "magnitude": Magnitude,
    "obs": OBS,
    "random": Random,
    "recover": Recover,
    "sparsegpt": SparseGPT,
    "wanda": Wanda,
}

STRUCTURED: dict[str, type[StructuredMethod]] = {
    "bonsai": Bonsai,
    "depth": Depth,
    "l2-structured": L2Structured,
    "llm-pruner": LLMPruner,
    "loraprune": LoRAPrune,
    "lorashear": LoRAShear,
    "random-structured": RandomStructured,
}


def build_method(method_id: str, parameters: Selection) -> Method:
    """Build the engine's implementation of a catalogue entry with its parameters."""
    return IMPLEMENTATIONS[method_id](parameters)


def build_structured_method(method_id: str, parameters: MethodParameters) -> StructuredMethod:
    """Build the implementation of a method that removes heads, channels or layers."""
    return STRUCTURED[method_id](parameters)


__all__ = ["IMPLEMENTATIONS", "STRUCTURED", "Method", "StructuredMethod", "build_method", "build_structured_method"]
