"""Checks that a model can lose the requested heads and channels, before their number is computed."""

from core.engine.architectures.description import ModelDescription
from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.units import AttentionMode, attention_mode
from core.engine.removals.widths.options import WidthOptions
from secateur_wire.errors import InvalidParameters, UnsupportedArchitecture
from secateur_wire.job_body import Layout


def attention_within(structure: ModelStructure, parameters: WidthOptions, layout: Layout) -> AttentionMode:
    """Return the unit of head removal; by default none where only some layers have heads and all must stay alike.

    Removing heads there would cost the layers with heads more than the others.
    """
    attention = attention_mode(parameters.attention, structure)
    is_open = parameters.attention == "auto" and layout == "uniform"
    return "none" if is_open and not structure.is_alike else attention


def check_offered(description: ModelDescription, parameters: WidthOptions) -> None:
    """Require that the architecture supports the requested removal."""
    family = description.known_as
    if not family.axes("channels"):
        why = family.refused.get("channels", "no channels were found that its config can express")
        raise UnsupportedArchitecture(
            f"{description.architecture} cannot lose channels: {why}; use a method that sets weights to zero",
            param="model",
        )
    if family.experts is not None and not parameters.cuts_experts:
        raise UnsupportedArchitecture(
            f"{description.architecture} is a mixture of experts, and this method does not remove their channels; "
            "use frontier, flap or llm-pruner, or a method that removes whole experts or weights",
            param="model",
        )
    kept = family.refused.get("heads")
    if kept is not None and parameters.attention not in ("auto", "none"):
        raise InvalidParameters(
            f"parameters.attention: {description.architecture} cannot lose heads: {kept}; use 'none' (channels only)",
            param="parameters.attention",
        )


def check_width(
    description: ModelDescription, structure: ModelStructure, parameters: WidthOptions, layout: Layout
) -> None:
    """Require that the layers can have shapes of that layout."""
    why = description.known_as.refused.get(layout)
    if why is not None:
        name = description.architecture
        raise InvalidParameters(
            f"output.layout: all layers of {name} cannot be made narrower through its config: {why}; use 'per_layer'"
            if layout == "uniform"
            else f"output.layout: layers of {name} cannot have different shapes: {why}; use 'uniform'",
            param="output.layout",
        )
    if layout == "uniform":
        if description.layout == "per_layer" or not structure.is_uniform:
            raise InvalidParameters(
                "output.layout: the layers of this model have different shapes already, so use 'per_layer'",
                param="output.layout",
            )
        needing = {
            "protected_first": bool(parameters.protected_first),
            "protected_last": bool(parameters.protected_last),
            "scope": parameters.ranks_layers(layout),
        }
        for name, is_requested in needing.items():
            if is_requested:
                raise InvalidParameters(
                    f"parameters.{name}: {getattr(parameters, name)!r} gives layers different shapes, which needs "
                    "output.layout 'per_layer'; with 'uniform' every layer gets the same shape",
                    param=f"parameters.{name}",
                )
    elif len(parameters.protected(description.layers)) == description.layers:
        raise InvalidParameters(
            f"parameters.protected_first and protected_last: all {description.layers} layers are protected, so "
            "nothing is left to remove",
            param="parameters.protected_first",
        )
