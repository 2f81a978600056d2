"""Everyday requests by which answers are compared; no model is calibrated on them. Loads no torch."""

from random import Random
from typing import Final

_TOPICS: Final = (
    "the moon", "bread", "rain", "a bicycle", "sleep", "a library", "salt", "the heart", "a bridge", "honey",
    "electricity", "a garden", "money", "music", "the sea",
)  # fmt: skip
_ACTIVITIES: Final = (
    "learning a language", "saving money", "cooking rice", "packing a suitcase", "falling asleep", "writing a letter",
    "cleaning a kitchen", "growing tomatoes", "reading more books", "preparing for an exam", "running in winter",
    "meeting new people", "repairing a shirt", "planning a birthday", "travelling by train",
)  # fmt: skip
_FORMS: Final = (
    ("Explain in two sentences what {} is.", _TOPICS),
    ("Why is {} important to people?", _TOPICS),
    ("Write a short poem about {}.", _TOPICS),
    ("Tell a child something surprising about {}.", _TOPICS),
    ("Name three words that go with {}, and say why.", _TOPICS),
    ("Give me three tips for {}.", _ACTIVITIES),
    ("What do I need for {}?", _ACTIVITIES),
    ("Describe the first step of {}.", _ACTIVITIES),
    ("Write a friendly message to someone who finds {} hard.", _ACTIVITIES),
    ("What is a common mistake in {}?", _ACTIVITIES),
)


def draw_prompts(count: int, seed: int = 0) -> list[str]:
    """Return so many different requests in an order by the seed; of 150, forms take turns as chance has it."""
    every = [form.format(subject) for form, subjects in _FORMS for subject in subjects]
    Random(seed).shuffle(every)
    return every[:count]
