"""Defaults of the job form once its model is known: who names only a model gets a job that is worth running.

REST fills in less: a program says what it means.
"""

from collections.abc import Iterable, Sequence

from api.portal.session import Form
from core.engine.options.patterns import family_of
from core.methods.registry import METHODS
from core.service.jobs.resolution.text import SELF
from core.service.plans.assumptions import USUAL_METHODS
from secateur_wire.datasets import Dataset
from secateur_wire.models import ModelSummary

SPARSITY = {"structured": "0.2"}
"""Usual sparsity with a pattern; half with any other."""
SAMPLES = 128
LENGTH = 512
EVALUATION_SAMPLES = 64
IMAGES = 1024
PROMPTS = ("The capital of France is", "To keep a rose healthy, prune it")
"""Prompts that dense and pruned continue, side by side in the report."""
_SELF_SAMPLES = 32
_CHARACTERS_PER_TOKEN = 6
"""More than tokenizers make of most texts, so that a text is not asked for more than it has."""


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
    chosen = _choose(_fitting(model, datasets), ("calibration", "train"))
    if chosen is None:
        if model.task != "language-model":
            return form
        length = min(LENGTH, model.context_length or LENGTH)
        return form.or_else(
            {
                "calibration.dataset": SELF,
                "calibration.samples": str(_SELF_SAMPLES),
                "calibration.sequence_length": str(length),
            }
        )
    if chosen.images is not None:
        samples = str(min(IMAGES, chosen.images))
        return form.or_else({"calibration.dataset": chosen.name, "calibration.samples": samples})
    length = _length(model, chosen)
    return form.or_else(
        {
            "calibration.dataset": chosen.name,
            "calibration.samples": str(_windows(chosen, length, SAMPLES)),
            "calibration.sequence_length": str(length),
        }
    )


def with_evaluation(form: Form, model: ModelSummary, datasets: Sequence[Dataset]) -> Form:
    """Return the form with an evaluation set, where nothing is to be measured.

    If there is one that is not calibrated on, it is that. For a language model that the job changes, prompts are added
    too.
    """
    if form.get("evaluation.datasets") or form.get("evaluation.tasks"):
        return form
    fitting = _fitting(model, datasets)
    others = [each for each in fitting if each.name != form.get("calibration.dataset")]
    chosen = _choose(others or fitting, ("evaluation", "test", "validation"))
    if chosen is None:
        return form
    filled = {"evaluation.datasets": chosen.name}
    if chosen.images is None:
        given = form.get("calibration.sequence_length")
        length = int(given) if given.isdecimal() else _length(model, chosen)
        if not given:
            filled["evaluation.sequence_length"] = str(length)
        filled["evaluation.samples"] = str(_windows(chosen, length, EVALUATION_SAMPLES))
        method = METHODS.get(form.get("method"))
        if method is not None and not method.measures:
            filled["evaluation.prompts"] = "\n".join(PROMPTS)
    return form.or_else(filled)


def _fitting(model: ModelSummary, datasets: Iterable[Dataset]) -> list[Dataset]:
    if model.task == "language-model":
        return [each for each in datasets if each.images is None]
    return [each for each in datasets if each.images is not None and each.classes == model.classes]


def _choose(datasets: Sequence[Dataset], words: Sequence[str]) -> Dataset | None:
    named = [each for each in datasets if any(word in each.name for word in words)]
    return max(named or datasets, key=lambda each: (each.images or 0, each.characters), default=None)


def _length(model: ModelSummary, text: Dataset) -> int:
    """Return the tokens of a sequence: no longer than the model's context, nor than the text."""
    return max(2, min(LENGTH, model.context_length or LENGTH, text.characters // _CHARACTERS_PER_TOKEN))


def _windows(text: Dataset, length: int, most: int) -> int:
    return max(1, min(most, text.characters // (_CHARACTERS_PER_TOKEN * length)))
