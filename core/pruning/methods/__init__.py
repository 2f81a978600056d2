"""Pruning methods, one short file per published method, composed of `core.pruning` and bound to the catalogue by id."""

from core.engine.options.base import MethodParameters
from core.engine.options.layer_selection import Selection
from core.pruning.methods.admm import ADMM
from core.pruning.methods.bonsai import Bonsai
from core.pruning.methods.depth import Depth
from core.pruning.methods.l2_structured import L2Structured
from core.pruning.methods.llm_pruner import LLMPruner
from core.pruning.methods.loraprune import LoRAPrune
from core.pruning.methods.lorashear import LoRAShear
from core.pruning.methods.magnitude import Magnitude
from core.pruning.methods.method import Method
from core.pruning.methods.obs import OBS
from core.pruning.methods.random import Random
from core.pruning.methods.random_structured import RandomStructured
from core.pruning.methods.recover import Recover
from core.pruning.methods.sparsegpt import SparseGPT
from core.pruning.methods.structured import StructuredMethod
from core.pruning.methods.wanda import Wanda

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
