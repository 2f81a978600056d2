"""Loading of the implementations of methods, which need torch: one table of their classes."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from core.engine.options.base import MethodParameters
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.removals.run import classifier_run
from core.methods.registry import get_method

CLASSES: dict[str, tuple[str, ...]] = {
    "random": ("core.methods.solvers.Random",),
    "magnitude": ("core.methods.solvers.Magnitude",),
    "wanda": ("core.methods.solvers.Wanda",),
    "sparsegpt": ("core.methods.solvers.SparseGPT",),
    "admm": ("core.methods.solvers.ADMM",),
    "frontier": ("core.methods.solvers.ADMM", "core.methods.frontier.structured.StructuredFrontier"),
    "random-structured": ("core.methods.random_structured.RandomStructured",),
    "l2-structured": ("core.methods.l2_structured.L2Structured",),
    "llm-pruner": ("core.methods.llm_pruner.LLMPruner",),
    "flap": ("core.methods.flap.FLAP",),
    "bonsai": ("core.methods.bonsai.method.Bonsai",),
    "loraprune": ("core.methods.loraprune.LoRAPrune",),
    "lorashear": ("core.methods.lorashear.method.LoRAShear",),
    "expert-drop": ("core.methods.expert_drop.ExpertDrop",),
    "depth": ("core.methods.depth.Depth",),
    "vocabulary": ("core.methods.solvers.Unchanged",),
    "recover": ("core.methods.solvers.Unchanged",),
    "none": ("core.methods.solvers.Unchanged",),
    "obd": ("core.methods.obd.OBD",),
    "obs": ("core.methods.obs.method.OBS", "core.methods.obs.method.ClassifierOBS"),
    "iterative-magnitude": ("core.methods.iterative_magnitude.IterativeMagnitude",),
    "filter-l1": ("core.methods.filter_l1.FilterL1",),
    "filter-taylor": ("core.methods.filter_taylor.FilterTaylor",),
}
"""Classes of each method, one for each protocol in which passes use it. They are imported when the method is built."""


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
