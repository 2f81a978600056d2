"""Traces of passes over language models: a worker runs the engine without values, and tells what a device would hold.

Where there is no trace, estimates do with a formula. A trace is kept by the model's shapes, and by method, options and
numbers of tokens, so that the next job of the same is estimated by it.
"""

import hashlib
import json
from math import ceil
from typing import Final

from pydantic import BaseModel
from sqlalchemy.orm import Session

from core.device_kinds import DeviceKind
from core.engine.architectures.description import ModelDescription
from core.methods.cost import Tokens
from core.methods.registry import get_method
from core.pipeline.messages import PassAnswer, TracedPass
from core.pipeline.recipes.recipe import Recipe
from core.service.questions.queue import QuestionKind, known_answer
from core.service.sources.references import ModelReference

_AT_RANDOM = "random-structured"


class PassTraceQuestion(BaseModel):
    """Question to a worker: the memory of a pass over a model."""

    model: ModelReference
    traced: TracedPass


PASS: Final = QuestionKind("pass", PassTraceQuestion, PassAnswer)


def traced_pass(
    description: ModelDescription, job: Recipe, tokens: Tokens, device: DeviceKind, activation_budget_bytes: int
) -> TracedPass | None:
    """Return the pass of a job as it is traced; None where it cannot be.

    It can where weights or units go from a model without experts: where tokens go depends on values. In the place of
    a method that trains a model to choose, units are traced that go at random.
    """
    method = get_method(job.method)
    if description.known_as.experts is not None or not method.prunes:
        return None
    parameters = method.variant(job.pattern).cost.traced_parameters(job.parameters).model_dump(mode="json")
    if method.variant(job.pattern).needs.training:
        method = get_method(_AT_RANDOM)
        parameters = {name: parameters[name] for name in method.parameters.model_fields if name in parameters}
    length = (job.calibration.sequence_length if job.calibration else None) or tokens.window
    window = job.evaluation.sequence_length or tokens.window
    return TracedPass(
        method=method.id,
        pattern=job.pattern,
        sparsity=job.sparsity,
        parameters=parameters | ({"seed": 0} if "seed" in parameters else {}),
        layout=job.request.layout,
        at_least=job.request.at_least,
        calibration=(ceil(tokens.calibration / length), length) if tokens.calibration else None,
        evaluations=((ceil(tokens.evaluation / window), window),) if tokens.evaluation else (),
        activation_budget_bytes=activation_budget_bytes,
        device=device.name,
        dtype=job.output.dtype,
        quantization=job.output.quantization if job.is_rounded_by_pass else None,
    )


def pass_trace_id(description: ModelDescription, traced: TracedPass) -> str:
    """Return the id of the trace of a pass over a model of these shapes."""
    content = json.dumps([description.model_dump(mode="json"), traced.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def known_peak(
    session: Session, team_id: str, model: ModelReference, description: ModelDescription, traced: TracedPass
) -> int | None:
    """Return the most bytes that a device holds during a pass; None where it is yet to be traced, or could not be.

    The first to ask for a pass has it traced.
    """
    question = PassTraceQuestion(model=model, traced=traced)
    answer = known_answer(session, PASS, team_id, pass_trace_id(description, traced), question)
    return None if answer is None else answer.peak_bytes
