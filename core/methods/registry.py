"""Registry of methods: a table of descriptions, in the order of lists, and one of classes. It does not load torch."""

from collections.abc import Mapping

from pydantic import ValidationError

from core.engine.options.axes import MethodParameters
from core.methods.descriptions import classifiers, frontier, structured, unpruned, zeros
from core.methods.method_info import MethodInfo
from core.validation import message_of, nearest_hint
from secateur_wire import gone
from secateur_wire.errors import InvalidParameters, UnknownMethod

METHODS = {
    info.id: info
    for info in (
        zeros.RANDOM,
        zeros.MAGNITUDE,
        zeros.WANDA,
        zeros.SPARSEGPT,
        zeros.ADMM,
        frontier.FRONTIER,
        structured.RANDOM_STRUCTURED,
        structured.L2_STRUCTURED,
        structured.LLM_PRUNER,
        structured.FLAP,
        structured.BONSAI,
        structured.LORAPRUNE,
        structured.LORASHEAR,
        structured.EXPERT_DROP,
        structured.DEPTH,
        unpruned.VOCABULARY,
        unpruned.RECOVER,
        unpruned.NONE,
        unpruned.SENSITIVITY,
        classifiers.OBD,
        classifiers.OBS,
        classifiers.ITERATIVE_MAGNITUDE,
        classifiers.FILTER_L1,
        classifiers.FILTER_TAYLOR,
    )
}
"""Methods by id."""
CLASSES: dict[str, tuple[str, ...]] = {
    "random": ("core.methods.solvers.Random",),
    "magnitude": ("core.methods.solvers.Magnitude",),
    "wanda": ("core.methods.solvers.Wanda",),
    "sparsegpt": ("core.methods.solvers.SparseGPT",),
    "admm": ("core.methods.solvers.ADMM",),
    "frontier": ("core.methods.solvers.ADMM", "core.methods.frontier.structured.StructuredFrontier"),
    "random-structured": ("core.methods.structured_baselines.RandomStructured",),
    "l2-structured": ("core.methods.structured_baselines.L2Structured",),
    "llm-pruner": ("core.methods.llm_pruner.LLMPruner",),
    "flap": ("core.methods.flap.FLAP",),
    "bonsai": ("core.methods.bonsai.Bonsai",),
    "loraprune": ("core.methods.loraprune.LoRAPrune",),
    "lorashear": ("core.methods.lorashear.LoRAShear",),
    "expert-drop": ("core.methods.expert_drop.ExpertDrop",),
    "depth": ("core.methods.depth.Depth",),
    "vocabulary": ("core.methods.solvers.Unchanged",),
    "recover": ("core.methods.solvers.Unchanged",),
    "none": ("core.methods.solvers.Unchanged",),
    "sensitivity": ("core.methods.sensitivity.SensitivityPass",),
    "obd": ("core.methods.classifiers.obd.OBD",),
    "obs": ("core.methods.classifiers.obs.OBS", "core.methods.classifiers.obs.ClassifierOBS"),
    "iterative-magnitude": ("core.methods.classifiers.iterative_magnitude.IterativeMagnitude",),
    "filter-l1": ("core.methods.classifiers.filters.FilterL1",),
    "filter-taylor": ("core.methods.classifiers.filters.FilterTaylor",),
}
"""Classes of each method, one for each protocol of its passes. They load torch, and only when they are built."""


def get_method(method_id: str) -> MethodInfo:
    """Return a method's description; raises UnknownMethod, which lists the known ids, or what took a method's place."""
    try:
        return METHODS[method_id]
    except KeyError:
        if method_id in gone.METHODS:
            message = f"method {method_id!r} has left: {gone.METHODS[method_id]}"
            raise UnknownMethod(message, param="method") from None
        raise UnknownMethod(
            f"method {method_id!r} is not known: use one of {', '.join(sorted(METHODS))}"
            f"{nearest_hint(method_id, METHODS)}",
            param="method",
        ) from None


def parse_parameters(method_id: str, parameters: Mapping[str, object], pattern: str | None = None) -> MethodParameters:
    """Validate a method's parameters for a pattern; without a pattern, for the method's default one.

    Raises InvalidParameters with the dotted name of the first wrong parameter.
    """
    method = get_method(method_id)
    variant = method.variant(pattern)
    try:
        return variant.parameters.model_validate(parameters)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(["parameters", *(str(part) for part in first["loc"])])
        message, name = message_of(first), where.removeprefix("parameters.")
        if first["type"] == "extra_forbidden":
            message += f"; {method_id} takes: {', '.join(variant.parameters.model_fields)}"
            message += nearest_hint(name, variant.parameters.model_fields)
            others = [repr(each) for each in method.patterns if name in method.variant(each).parameters.model_fields]
            if others:
                message = f"belongs to pattern {' or '.join(others)} of {method_id}: use that pattern, or leave it out"
        raise InvalidParameters(f"{where}: {message}", param=where) from None
