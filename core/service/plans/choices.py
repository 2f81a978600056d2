"""Choices of plans: fields of a job, what the planner put there, and why."""

from collections.abc import Sequence

from pydantic import JsonValue

from core.engine.architectures.describe import Description
from core.engine.exporters.registry import ADDED
from core.pipeline.reports.verdict import CLOSE_TO_DENSE
from core.service.jobs.resolution.text import SELF
from core.service.plans.amounts import PACKED
from core.service.plans.job_bodies import RECOVERIES
from secateur_wire.base import JsonObject
from secateur_wire.plans import Goal, PlanChoice, PlanFigure


def choice(field: str, value: JsonValue, reason: str) -> PlanChoice:
    """Return a choice, from any value that a job may hold."""
    return PlanChoice.model_validate({"field": field, "value": value, "reason": reason})


def size_choices(description: Description, exports: Sequence[JsonObject]) -> list[PlanChoice]:
    """Return the choices of the form of an artifact that is to take less room."""
    packed = choice("output.format", PACKED, "zeros take no room in packed files, which restore bit by bit")
    if not any(description.task in each.task_families for each in ADDED.values()):
        return [packed]
    if not exports:
        why = "no job here has shown yet that the workers have llama.cpp, or this model cannot be written for it"
        return [packed, choice("output.exports", [], why)]
    files = []
    for each in exports:
        types = [str(name) for name in each["types"]] if isinstance(each["types"], list) else []
        added = ADDED[str(each["format"])].added_cost(description.language_model, types, is_timed=False)
        files.append(f"{each['format']} {', '.join(types)}, about {added.bytes / description.bytes:.0%} of the bytes")
    why = "workers here have written such files before; zeros take as much room there as other weights"
    return [packed, choice("output.exports", [*files], why)]


def choose_recovery(
    description: Description, goal: Goal, expected: PlanFigure | None, calibrated_on: str | None
) -> tuple[JsonObject | None, PlanChoice]:
    """Return the training to plan, if any, and why; `expected` is the perplexity without."""
    if goal != "speed":
        return None, choice("recovery", None, "zeros cost less than parts that are gone: see the job first")
    body = RECOVERIES[description.task]
    if not description.model_task.has_perplexity:
        return body, choice("recovery", body, "filters cost accuracy that training wins back")
    if calibrated_on in (None, SELF):
        return None, choice("recovery", None, "there is no text to train on: register one of your use")
    if expected is None:
        return None, choice("recovery", None, "it is not known yet that this amount needs it: see the job first")
    if expected.estimate <= CLOSE_TO_DENSE:
        return None, choice("recovery", None, "the model is expected to stay close to the dense one without")
    why = "more is lost than stays close to the dense model, and training wins back a part of it"
    return body, choice("recovery", body, why)
