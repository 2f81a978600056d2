"""Children that answer questions of a worker: the answer is all that they write to their output."""

import io
import os
import sys

import pytest

from core.pipeline.messages import CountAnswer
from core.pipeline.stages import questions


def test_what_a_library_prints_from_c_is_no_part_of_the_answer(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(question: CountAnswer) -> CountAnswer:
        os.write(1, b"printed from C")
        return question

    monkeypatch.setitem(questions.ANSWERS, "any", (CountAnswer, answer))
    monkeypatch.setattr(sys, "argv", ["questions", "any"])
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"refusal": "none"}'))
    questions.main()
    written, printed = capfd.readouterr()
    assert CountAnswer.model_validate_json(written).refusal == "none"
    assert "printed from C" in printed
