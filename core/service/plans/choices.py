"""Choices of plans: fields of a job, what the planner put there, and why."""

from collections.abc import Sequence

from pydantic import JsonValue

from core.engine.architectures.describe import Description
from core.engine.architectures.description import ModelDescription
from core.engine.exporters.registry import ADDED
from core.service.plans.amounts import PACKED
from secateur_wire.base import JsonObject
from secateur_wire.plans import PlanChoice


def choice(field: str, value: JsonValue, reason: str) -> PlanChoice:
    """Return a choice, from any value that a job may hold."""
    return PlanChoice.model_validate({"field": field, "value": value, "reason": reason})


def size_choices(description: Description, exports: Sequence[JsonObject]) -> list[PlanChoice]:
    """Return the choices of the form of an artifact that is to take less room."""
    packed = choice("output.format", PACKED, "zeros take no room in packed files, which restore bit by bit")
    if not isinstance(description, ModelDescription):
        return [packed]
    if not exports:
        why = "no job here has shown yet that the workers have llama.cpp, or this model cannot be written for it"
        return [packed, choice("output.exports", [], why)]
    files = []
    for each in exports:
        types = [str(name) for name in each["types"]] if isinstance(each["types"], list) else []
        share = ADDED[str(each["format"])].added_cost(description, types, is_timed=False).bytes / description.bytes
        files.append(f"{each['format']} {', '.join(types)}, about {share:.0%} of the bytes")
    why = "workers here have written such files before; zeros take as much room there as other weights"
    return [packed, choice("output.exports", [*files], why)]
