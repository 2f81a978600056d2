"""Defaults of the job form once its model is known: who names only a model gets a job that is worth running.

REST fills in less: a program says what it means.
"""

from collections.abc import Sequence

from api.portal.session import Form
from core.engine.options.patterns import family_of
from core.methods.registry import METHODS
from core.service.plans.assumptions import USUAL_METHODS
from core.service.plans.job_bodies import (
    CALIBRATION_WORDS,
    EVALUATION_SAMPLES,
    EVALUATION_WORDS,
    PROMPTS,
    RECOVERIES,
    calibration_body,
    choose_set,
    fitting_sets,
    sequence_length,
    sequences_of,
)
from secateur_wire.datasets import Dataset
from secateur_wire.models import ModelSummary

SPARSITY = {"structured": "0.2"}
"""Usual sparsity with a pattern; half with any other."""


def with_method(form: Form, model: ModelSummary) -> Form:
    """Return the form with the usual method for such a model, where it names none."""
    return form if form.get("method") else form.but({"method": USUAL_METHODS[model.task]})


def with_target(form: Form) -> Form:
    """Return the form with the usual sparsity, where neither a sparsity nor a target is given."""
    method = METHODS.get(form.get("method"))
    said = any(name == "sparsity" or name.startswith("target.") for name in form.lists)
    if method is None or not method.prunes or said or ":" in form.get("pattern"):
        return form
    given = family_of(form.get("pattern"))
    return form.but({"sparsity": SPARSITY.get(given if given in method.patterns else method.patterns[0], "0.5")})


def with_calibration(form: Form, model: ModelSummary, datasets: Sequence[Dataset]) -> Form:
    """Return the form with a calibration set, where the method needs one and none is named.

    That is the registered one whose name says so, else the largest; for a language model without any, text that it
    generates itself.
    """
    method = METHODS.get(form.get("method"))
    if method is None or form.get("calibration.dataset"):
        return form
    if not method.variant(form.get("pattern")).needs.calibration:
        return form
    chosen = choose_set(fitting_sets(model, datasets), CALIBRATION_WORDS)
    body = calibration_body(model, chosen) or {}
    return form.or_else({f"calibration.{name}": str(value) for name, value in body.items()})


def with_recovery(form: Form, model: ModelSummary) -> Form:
    """Return the form with the recovery that is planned elsewhere too, where whole units go and none is named.

    A language model without a text to calibrate on has none to recover on either.
    """
    method = METHODS.get(form.get("method"))
    if method is None or not method.prunes or form.get("recovery.method"):
        return form
    if not method.variant(form.get("pattern")).shrinks or method.needs.training or not form.get("calibration.dataset"):
        return form
    return form.or_else({f"recovery.{name}": str(value) for name, value in RECOVERIES[model.task].items()})


def with_evaluation(form: Form, model: ModelSummary, datasets: Sequence[Dataset]) -> Form:
    """Return the form with an evaluation set, where nothing is to be measured.

    If there is one that is not calibrated on, it is that. For a language model that the job changes, prompts are added
    too.
    """
    if form.get("evaluation.datasets") or form.get("evaluation.tasks"):
        return form
    fitting = fitting_sets(model, datasets)
    others = [each for each in fitting if each.name != form.get("calibration.dataset")]
    chosen = choose_set(others or fitting, EVALUATION_WORDS)
    if chosen is None:
        return form
    filled = {"evaluation.datasets": chosen.name}
    if chosen.images is None:
        given = form.get("calibration.sequence_length")
        length = int(given) if given.isdecimal() else sequence_length(model, chosen)
        if not given:
            filled["evaluation.sequence_length"] = str(length)
        filled["evaluation.samples"] = str(sequences_of(chosen, length, EVALUATION_SAMPLES))
        method = METHODS.get(form.get("method"))
        if method is not None and not method.measures:
            filled["evaluation.prompts"] = "\n".join(PROMPTS)
    return form.or_else(filled)
