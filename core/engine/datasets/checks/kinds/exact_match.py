"""Answer that is one of the reference's texts, word for word."""

from core.engine.datasets.checks.check import Check
from core.engine.datasets.checks.references import read_texts


def _is_one_of(answer: str, texts: tuple[str, ...]) -> bool:
    return _joined(answer) in {_joined(text) for text in texts}


def _joined(text: str) -> str:
    """Return the text without white space at its ends, and with one space for each run of it."""
    return " ".join(text.split())


CHECK = Check("exact_match", 1, "the reference, word for word; white space aside", read_texts, _is_one_of)
