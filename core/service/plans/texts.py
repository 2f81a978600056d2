"""Choice of the texts or images of a job, among those that a team has registered."""

from collections.abc import Iterable, Sequence

from core.service.jobs.resolution.text import SELF
from secateur_wire.base import JsonObject
from secateur_wire.datasets import Dataset
from secateur_wire.models import ModelSummary

LENGTH = 512
"""Tokens of a sequence, where the model's context is not shorter."""
CALIBRATION_SAMPLES = 128
"""Sequences to calibrate on, at most."""
OWN_SAMPLES = 32
"""Sequences to calibrate on that the model writes itself."""
EVALUATION_SAMPLES = 64
"""Sequences to measure on, at most."""
IMAGES = 1024
"""Images to calibrate on, at most."""
PROMPTS = ("The capital of France is", "To keep a rose healthy, prune it")
"""Prompts that dense and pruned continue, side by side in the report."""
CALIBRATION_WORDS = ("calibration", "train")
EVALUATION_WORDS = ("evaluation", "test", "validation")
"""Words in the names of sets that say what they are for."""
_CHARACTERS_PER_TOKEN = 6
"""More than tokenizers make of most texts, so that a text is not asked for more than it has."""


def fitting_sets(model: ModelSummary, datasets: Iterable[Dataset]) -> list[Dataset]:
    """Return the sets that such a model can read: texts, or images of as many classes."""
    if model.reads_images:
        return [each for each in datasets if each.images is not None and each.classes == model.classes]
    return [each for each in datasets if each.images is None]


def choose_set(datasets: Sequence[Dataset], words: Sequence[str]) -> Dataset | None:
    """Return the largest set, of those whose name has one of the words if there are any; None without any set."""
    named = [each for each in datasets if any(word in each.name for word in words)]
    return max(named or datasets, key=lambda each: (each.images or 0, each.characters), default=None)


def sequence_length(model: ModelSummary, text: Dataset | None) -> int:
    """Return the tokens of a sequence: no longer than the model's context, nor than the text."""
    length = min(LENGTH, model.context_length or LENGTH)
    return length if text is None else max(2, min(length, text.characters // _CHARACTERS_PER_TOKEN))


def sequences_of(text: Dataset, length: int, most: int) -> int:
    """Return how many sequences of a length are taken of a text."""
    return max(1, min(most, text.characters // (_CHARACTERS_PER_TOKEN * length)))


def calibration_body(model: ModelSummary, chosen: Dataset | None, most: int = CALIBRATION_SAMPLES) -> JsonObject | None:
    """Return a job's calibration on a set, at most so many sequences of it; without one, on the model's own text.

    None where there is no set and the model writes no text.
    """
    if model.reads_images:
        return None if chosen is None else {"dataset": chosen.name, "samples": min(IMAGES, chosen.images or IMAGES)}
    length = sequence_length(model, chosen)
    if chosen is None:
        return {"dataset": SELF, "samples": OWN_SAMPLES, "sequence_length": length}
    return {"dataset": chosen.name, "samples": sequences_of(chosen, length, most), "sequence_length": length}
