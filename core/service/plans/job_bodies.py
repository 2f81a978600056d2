"""Job bodies of plans: the texts, measurements, recovery and artifact form that a goal needs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core.engine.architectures.description import Description
from core.methods.method_info import Variant
from core.methods.registry import get_method, parse_parameters
from core.pipeline.recipes.validation import calibrated_variant
from core.service.jobs.resolution.dataset import SELF
from core.service.plans.answers import EarlierQuestions
from core.service.plans.candidates import JobCandidate
from secateur_wire.base import JsonObject
from secateur_wire.datasets import Dataset
from secateur_wire.models import ModelSummary
from secateur_wire.plans import PlanChoice

LENGTH = 512
"""Tokens of a sequence, unless the model's context is shorter."""
CALIBRATION_SAMPLES = 128
"""Maximum number of calibration sequences."""
OWN_SAMPLES = 32
"""Number of calibration sequences that the model generates."""
EVALUATION_SAMPLES = 64
"""Maximum number of evaluation sequences."""
IMAGES = 1024
"""Maximum number of calibration images."""
PROMPTS = ("The capital of France is", "To keep a rose healthy, prune it")
"""Prompts that the dense and the pruned model continue, side by side in the report."""
CALIBRATION_WORDS = ("calibration", "train")
EVALUATION_WORDS = ("evaluation", "test", "validation")
"""Words in the names of sets that indicate their use."""
_CHARACTERS_PER_TOKEN = 6
"""More characters per token than most tokenizers need, so that a plan never asks for more text than there is."""


def fitting_sets(model: ModelSummary, datasets: Iterable[Dataset]) -> list[Dataset]:
    """Return the sets that such a model can read: texts, or images with the same number of classes."""
    if model.reads_images:
        return [each for each in datasets if each.images is not None and each.classes == model.classes]
    return [each for each in datasets if each.images is None]


def choose_set(datasets: Sequence[Dataset], words: Sequence[str]) -> Dataset | None:
    """Return the largest set, preferably one whose name has one of the words; None without any set."""
    named = [each for each in datasets if any(word in each.name for word in words)]
    return max(named or datasets, key=lambda each: (each.images or 0, each.characters), default=None)


def sequence_length(model: ModelSummary, text: Dataset | None) -> int:
    """Return the tokens of a sequence: at most the model's context, and at most the text."""
    length = min(LENGTH, model.context_length or LENGTH)
    return length if text is None else max(2, min(length, text.characters // _CHARACTERS_PER_TOKEN))


def sequences_of(text: Dataset, length: int, most: int) -> int:
    """Return the number of sequences of a length to take from a text."""
    return max(1, min(most, text.characters // (_CHARACTERS_PER_TOKEN * length)))


def calibration_body(model: ModelSummary, chosen: Dataset | None, most: int = CALIBRATION_SAMPLES) -> JsonObject | None:
    """Return a job's calibration on a set, with at most so many sequences; without a set, on the model's own text.

    None where there is no set and the model cannot generate text.
    """
    if model.reads_images:
        return None if chosen is None else {"dataset": chosen.name, "samples": min(IMAGES, chosen.images or IMAGES)}
    length = sequence_length(model, chosen)
    if chosen is None:
        return {"dataset": SELF, "samples": OWN_SAMPLES, "sequence_length": length}
    return {"dataset": chosen.name, "samples": sequences_of(chosen, length, most), "sequence_length": length}


RECOVERY_MINUTES = 10
_OWN_EVALUATION = 16
_LAYER_SAMPLES = 8
"""Number of sequences on which every layer is measured at every rate."""
RECOVERIES: Final[Mapping[str, JsonObject]] = {
    "language-model": {"method": "distill", "minutes": RECOVERY_MINUTES},
    "image-classification": {"method": "finetune", "steps": 300, "batch_size": 64},
}
"""Recovery training in plans, by the task of a model."""


@dataclass(frozen=True)
class Texts:
    """Texts or images of a job as its body names them, with the reasons; None where it needs none or has none."""

    calibration: JsonObject | None
    evaluation: JsonObject
    choices: Sequence[PlanChoice]

    def with_questions(self, earlier: EarlierQuestions | None) -> "Texts":
        """Return the same, with a comparison of answers to the questions that an earlier job asked."""
        if earlier is None or not self.evaluation:
            return self
        evaluation = {**self.evaluation, "answers": earlier.answers}
        return Texts(self.calibration, evaluation, [*self.choices, earlier.choice])

    @property
    def evaluated_on(self) -> str | None:
        """Return the set on which the model is measured."""
        datasets = self.evaluation.get("datasets")
        return str(datasets[0]) if isinstance(datasets, list) and datasets else None

    @property
    def calibrated_on(self) -> str | None:
        return None if self.calibration is None else str(self.calibration["dataset"])

    @property
    def tokens(self) -> int:
        """Return the number of calibration tokens, 0 without calibration text."""
        if self.calibration is None:
            return 0
        samples, length = self.calibration.get("samples"), self.calibration.get("sequence_length")
        return samples * length if isinstance(samples, int) and isinstance(length, int) else 0


def summary_of(description: Description) -> ModelSummary:
    """Return the facts of a model by which texts are chosen."""
    shared = ModelSummary.model_fields.keys() & type(description).model_fields.keys()
    return ModelSummary.model_validate({name: getattr(description, name) for name in shared})


def variant_of(candidate: JobCandidate) -> Variant:
    """Return the method that reads the calibration set: the candidate's, or the one whose sensitivity it measures."""
    checked = parse_parameters(candidate.method, candidate.parameters, candidate.pattern)
    return calibrated_variant(candidate.method, candidate.pattern, checked)


def choose_texts(
    candidate: JobCandidate, description: Description, datasets: Sequence[Dataset], dataset: str | None
) -> Texts:
    """Choose the calibration and evaluation texts: `dataset` where it is given, else a registered set."""
    model = summary_of(description)
    fitting = fitting_sets(model, datasets)
    choices: list[PlanChoice] = []
    calibration: JsonObject | None = None
    measures = get_method(candidate.method).measures
    if variant_of(candidate).needs.calibration or candidate.removes_tokens:
        calibration, choice = _calibration(candidate, model, fitting, dataset)
        choices += [] if choice is None else [choice]
    used = None if calibration is None else calibration["dataset"]
    others = [each for each in fitting if each.name != used]
    chosen = choose_set(others or fitting, EVALUATION_WORDS)
    if chosen is None:
        evaluation, why = _unregistered_evaluation(calibration, dataset, measures=measures)
    else:
        evaluation = _registered_evaluation(model, chosen, calibration, _LAYER_SAMPLES if measures else None)
        why = "a registered set that the job does not calibrate on"
        if chosen.name == used:
            why = "the only registered set, which the job calibrates on too: figures will be better than on other text"
    if evaluation:
        if not model.reads_images and not measures:
            evaluation["prompts"] = list(PROMPTS)
        choices.append(PlanChoice(field="evaluation.datasets", value=evaluation["datasets"], reason=why))
    return Texts(calibration, evaluation, choices)


def _calibration(
    candidate: JobCandidate, model: ModelSummary, fitting: Sequence[Dataset], dataset: str | None
) -> tuple[JsonObject | None, PlanChoice | None]:
    registered = {each.name: each for each in fitting}
    chosen = registered.get(dataset) if dataset else choose_set(fitting, CALIBRATION_WORDS)
    why = "the text that was asked for" if dataset else "a registered set"
    if chosen is not None and not dataset:
        why = (
            "registered, and its name says what it is for"
            if any(word in chosen.name for word in CALIBRATION_WORDS)
            else "the largest registered set that fits the model"
        )
    if chosen is None and dataset not in (None, SELF):  # It is not registered, so nothing is known about it.
        body: JsonObject | None = {"dataset": dataset, "samples": IMAGES}
        if not model.reads_images:
            length = sequence_length(model, None)
            body = {"dataset": dataset, "samples": candidate.sequences, "sequence_length": length}
    else:
        body = calibration_body(model, chosen, candidate.sequences)
    if body is None:
        return None, None
    if chosen is None and dataset is None:
        why = "no text is registered, so the model writes its own; text of your use serves better"
    return body, PlanChoice(field="calibration.dataset", value=body["dataset"], reason=why)


def _registered_evaluation(
    model: ModelSummary, chosen: Dataset, calibration: JsonObject | None, most: int | None
) -> JsonObject:
    if chosen.images is not None:
        return {"datasets": [chosen.name]}
    length = sequence_length(model, chosen)
    given = None if calibration is None else calibration.get("sequence_length")
    if isinstance(given, int):
        length = min(length, given)
    samples = sequences_of(chosen, length, most or EVALUATION_SAMPLES)
    return {"datasets": [chosen.name], "sequence_length": length, "samples": samples}


def _unregistered_evaluation(
    calibration: JsonObject | None, dataset: str | None, *, measures: bool
) -> tuple[JsonObject, str]:
    """Return the evaluation text where none is registered: the calibration text, or one from the same source."""
    if calibration is None or measures:
        return {}, ""
    length, samples = calibration.get("sequence_length"), _OWN_EVALUATION
    if calibration["dataset"] == SELF:
        evaluation: JsonObject = {"datasets": [SELF], "sequence_length": length, "samples": samples}
        return (
            evaluation,
            "no text is registered, so the loss is measured on other text that the model writes",
        )
    if length is None:
        return {"datasets": [dataset]}, "no other set is registered"
    evaluation = {"datasets": [dataset], "sequence_length": length, "samples": EVALUATION_SAMPLES}
    return evaluation, "no text is registered, so the evaluation part of the same source is used"
