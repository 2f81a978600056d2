"""Answers of both models side by side, with their differences marked."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from api.portal.views.result_cards import Row
from core.pipeline.reports.report import Report
from secateur_wire.answers import Answer, AnswerFigures, ComparedAnswer, PairedFigure, PairedLength
from secateur_wire.metrics import Metrics

_WORDS: Final = re.compile(r"\s*\S+|\s+$")
_OPEN: Final = 4
"""Answers of a set that are shown at once; the others are unfolded."""


@dataclass(frozen=True)
class Piece:
    """Part of an answer; `differs`: the other model's answer does not have it in this place."""

    text: str
    differs: bool


@dataclass(frozen=True)
class ShownAnswer:
    """Answer of one model: its pieces, its thought, and a line about it."""

    name: str
    pieces: list[Piece]
    thought: str | None
    about: str


@dataclass(frozen=True)
class ShownPair:
    """Question with both answers."""

    question: str
    about: str
    answers: list[ShownAnswer]


@dataclass(frozen=True)
class AnsweredSet:
    """Questions of one set with their answers; those in `more` are folded."""

    name: str
    first: list[ShownPair]
    more: list[ShownPair]


def answered_sets(report: Report, names: tuple[str, str]) -> list[AnsweredSet]:
    """Return the answers of a report by set; `names` are those of the models."""
    shown = {name: [_pair(each, names) for each in answers] for name, answers in report.answers.items()}
    return [AnsweredSet(name, pairs[:_OPEN], pairs[_OPEN:]) for name, pairs in shown.items()]


def answer_rows(metrics: Metrics) -> Iterator[Row]:
    """Yield a row for every figure of the compared answers."""
    for name, figures in metrics.answers.items():
        yield from _rows(name, figures)


def pieces_of(text: str, other: str) -> list[Piece]:
    """Return a text in pieces, word by word, marked where the other text differs."""
    words, others = _WORDS.findall(text), _WORDS.findall(other)
    pieces = []
    for kind, start, end, *_ in SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        if end > start:
            pieces.append(Piece("".join(words[start:end]), kind != "equal"))
    return pieces


def _pair(each: ComparedAnswer, names: tuple[str, str]) -> ShownPair:
    about = [] if each.line is None else [f"line {each.line}"]
    if each.kl is not None:
        about.append(f"KL {each.kl:.2g} nats a token")
    if each.check is not None:
        about.append(f"{each.check}: {each.reference}")
    return ShownPair(
        question=each.question,
        about=", ".join(about),
        answers=_shown((each.dense, each.pruned), names),
    )


def _shown(answers: tuple[Answer, Answer], names: Sequence[str]) -> list[ShownAnswer]:
    return [
        ShownAnswer(name, pieces_of(answer.text, other.text), answer.thought, _about(answer))
        for name, answer, other in zip(names, answers, reversed(answers), strict=True)
    ]


def _about(answer: Answer) -> str:
    passed: Mapping[bool | None, str] = {True: ", right", False: ", wrong", None: ""}
    cut = "" if answer.ended else ", cut off at the limit"
    return f"{answer.tokens} tokens{cut}{passed[answer.passed]}"


def _rows(name: str, figures: AnswerFigures) -> Iterator[Row]:
    counted = f"{figures.questions} questions"
    if figures.kl is not None:
        error = "" if figures.kl_stderr is None else f" ± {figures.kl_stderr:.2g}"
        along = f"{figures.predictions:,} tokens of the dense model's own answers"
        yield Row(f"KL a token along the dense answers, {name}", "0", f"{figures.kl:.3g}{error}", "–", along)
        yield Row(f"same likeliest token, {name}", "100 %", f"{figures.top_1 or 0:.0%}", "–", along)
    yield Row(f"same first token, {name}", "100 %", f"{figures.first_token:.0%}", "–", counted)
    yield Row(f"identical answers, {name}", "100 %", f"{figures.identical:.0%}", "–", counted)
    yield _length(f"length of answers, {name}", figures.length, counted)
    if figures.thoughts is not None:
        yield _length(f"length of thoughts, {name}", figures.thoughts.length, counted)
        yield _share(f"thoughts without an end, {name}", figures.thoughts.unfinished, counted)
    yield _share(f"cut off at {figures.max_new_tokens} tokens, {name}", figures.greedy.cut_off, counted)
    yield _share(f"repeated sequences of four tokens, {name}", figures.greedy.repetition, counted)
    if figures.score is not None:
        yield _share(f"right answers, {name}", figures.score, f"{figures.score.questions} questions with a check")


def _length(what: str, length: PairedLength, note: str) -> Row:
    error = "" if length.ratio_stderr is None else f" ± {length.ratio_stderr:.2g}"
    change = "–" if length.ratio is None else f"× {length.ratio:.3g}{error}"
    return Row(what, f"{length.dense:.1f} tokens", f"{length.pruned:.1f} tokens", change, note)


def _share(what: str, figure: PairedFigure, note: str) -> Row:
    error = "" if figure.stderr is None else f" ± {100 * figure.stderr:.1f}"
    return Row(what, f"{figure.dense:.0%}", f"{figure.pruned:.0%}", f"{100 * figure.change:+.1f}{error} points", note)
