"""Answer that contains all of the reference's texts."""

from core.engine.datasets.checks.check import Check
from core.engine.datasets.checks.references import read_texts


def _contains_all(answer: str, texts: tuple[str, ...]) -> bool:
    searched = answer.casefold()
    return all(text.casefold() in searched for text in texts)


CHECK = Check(
    "contains", 2, "every text of the reference appears; upper and lower case alike", read_texts, _contains_all
)
