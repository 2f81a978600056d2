"""Questions whose answers are compared."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.chat.conversations import LeftOutRows, RenderedRow
from core.engine.datasets.token_bytes import token_ids
from core.engine.evaluation.answers.thoughts import opens_thought
from secateur_wire.errors import UnusableDataset

TEXT_TOKENS: Final = 64
"""Tokens of a text's beginning, which a model is given to go on from."""
_MOST_DOCUMENTS: Final = 10_000
"""Most documents of a text from which the questions are taken."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class EvaluationQuestion:
    """Text that a model answers, or goes on from, with the line of its row.

    `reference` is what the check of this name compares an answer with; None without one. `is_chat`: the text was
    rendered by the model's chat template.
    """

    line: int
    text: str
    reference: JsonValue = None
    check: str | None = None
    is_chat: bool = True

    @property
    def opens_thought(self) -> bool:
        """Return True if the text ends within a thought that the answer goes on with."""
        return opens_thought(self.text)


def questions_of_rows(rows: Sequence[RenderedRow], samples: int | None, check: str | None) -> list[EvaluationQuestion]:
    """Return the questions of rendered conversations, evenly spaced over the set.

    `check` is that of rows with a reference that name none of their own.
    """
    return [
        EvaluationQuestion(
            line=row.line,
            text=row.text,
            reference=row.reference,
            check=None if row.reference is None else row.check or check,
        )
        for row in _spaced(rows, samples)
    ]


def questions_of_texts(
    documents: Iterable[str], samples: int | None, tokenizer: PreTrainedTokenizerBase
) -> list[EvaluationQuestion]:
    """Return the beginnings of documents, of at most `TEXT_TOKENS` tokens, evenly spaced over the first documents."""
    known = [text for text in islice(documents, _MOST_DOCUMENTS) if text.strip()]
    numbered = _spaced(list(enumerate(known, 1)), samples)
    return [EvaluationQuestion(line=line, text=_beginning(text, tokenizer), is_chat=False) for line, text in numbered]


def fitting(
    questions: Sequence[EvaluationQuestion], sizes: Sequence[int], most: int, name: str
) -> tuple[list[EvaluationQuestion], LeftOutRows]:
    """Return the questions of at most `most` tokens, and count the others; raises UnusableDataset where none is left.

    `sizes` are the tokens of each question.
    """
    left_out = LeftOutRows()
    short = []
    for question, size in zip(questions, sizes, strict=True):
        if size > most:
            left_out.add(f"a question of more than {most} tokens", question.line)
        else:
            short.append(question)
    if not short:
        raise UnusableDataset(
            f"{name}: every question has more than {most} tokens, which leaves no room for the answer in the model's "
            "context: ask for shorter answers, or use a set of shorter questions",
            param="evaluation.answers.datasets",
        )
    return short, left_out


def _spaced(items: Sequence[Item], samples: int | None) -> Sequence[Item]:
    count = len(items) if samples is None else min(samples, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def _beginning(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    ids = token_ids(text[: 64 * TEXT_TOKENS], tokenizer)
    if len(ids) <= TEXT_TOKENS:
        return text
    return str(tokenizer.decode(ids[:TEXT_TOKENS], skip_special_tokens=True, clean_up_tokenization_spaces=False))
