"""Tokens that a text does not use: a worker counts them, and plans for speed and size remove them first."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from core.database import seconds_from_now, transaction
from core.pipeline.messages import CountAnswer, CountedTokens, CountQuestion, TextSource
from core.pipeline.stages.questions import count
from core.service.jobs.schemas import JobBody
from core.service.jobs.service import submit
from core.service.questions.queue import MOST_ATTEMPTS, forget_unused
from core.service.questions.tables import QuestionRow
from core.service.token_counts import COUNT
from core.settings import Settings
from secateur_wire.base import JsonObject
from secateur_wire.errors import SecateurError
from secateur_wire.plans import Plan, PlanChoice
from tests.gguf.trained import save_trained
from tests.model_folders import write_text
from tests.plans.desk import MODELS, Desk
from worker.supervisor.secluded_child import ask_child
from worker.supervisor.token_counter import TokenCounter

WORDS, ROW = 49152, 576
USED = CountedTokens(used=20_000, tokens=400_000, least=400, kept=20_032)
GONE = (WORDS - USED.kept) * ROW / MODELS["smol"].parameters


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.register("my-calibration", "my-articles")
    return desk


def _saying(place: Path, said: CountAnswer) -> Sequence[str]:
    """Return the command of a child that answers so, whatever it is asked."""
    file = place / "answer.json"
    file.write_text(said.model_dump_json())
    return sys.executable, "-c", "import sys; print(open(sys.argv[1]).read())", str(file)


def _counter(desk: Desk, place: Path, said: CountAnswer) -> TokenCounter:
    return TokenCounter(desk.store, desk.settings, command=_saying(place, said))


def _count(desk: Desk, place: Path, said: CountAnswer = CountAnswer(counted=USED)) -> None:  # noqa: B008
    desk.plan("smol", "speed")
    assert _counter(desk, place, said).take_next(desk.sessions)


def _rows(desk: Desk) -> list[QuestionRow]:
    with transaction(desk.sessions) as session:
        return list(session.scalars(select(QuestionRow).where(QuestionRow.kind == COUNT.name)))


def _choice(planned: Plan, field: str) -> PlanChoice:
    return next(each for each in planned.choices if each.field == field)


def test_a_plan_has_the_tokens_counted_and_gives_a_bound_meanwhile(desk: Desk, tmp_path: Path) -> None:
    planned = desk.plan("smol", "speed")
    told = _choice(planned, "vocabulary")
    assert planned.job["method"] == "frontier" and "vocabulary" not in planned.job and told.value is None
    assert "counts the tokens of my-calibration" in told.reason and "have 21% of the parameters" in told.reason
    (row,) = _rows(desk)
    asked = COUNT.question.model_validate(row.question)
    assert row.due_at is not None and asked.text.name == "my-calibration" and asked.vocabulary_size == WORDS
    counter = _counter(desk, tmp_path, CountAnswer(counted=USED))
    assert counter.take_next(desk.sessions) and not counter.take_next(desk.sessions)
    assert COUNT.answer.model_validate(_rows(desk)[0].answer).counted == USED and _rows(desk)[0].due_at is None


def test_tokens_that_the_text_does_not_use_go_first(desk: Desk, tmp_path: Path) -> None:
    _count(desk, tmp_path)
    speed, size = desk.plan("smol", "speed"), desk.plan("smol", "size")
    for planned in (speed, size):
        job = planned.job
        assert (job["method"], job["parameters"]) == ("vocabulary", {"tokens": "auto"})
        assert job["calibration"]["dataset"] == "my-calibration" and "sparsity" not in job  # type: ignore[index, call-overload]
        assert planned.amount == pytest.approx(GONE, abs=1e-9)
        assert planned.figures["bytes_ratio"].estimate == pytest.approx(1 - GONE, abs=1e-6)
        reason = _choice(planned, "parameters.tokens").reason
        assert "my-calibration uses 20,000 of 49,152 tokens: 12% smaller at no loss on this text itself" in reason
    assert "Remove 29,120 of 49,152 tokens from smol" in speed.summary
    rated = [each.figures["perplexity_ratio"] for each in speed.points if "perplexity_ratio" in each.figures]
    assert rated[-1].estimate > 1.2, "how far it goes at a loss is shown too"
    assert desk.plan("smol", "speed", amount=0.05).job["method"] == "vocabulary"


def test_a_job_that_a_count_shows_to_be_impossible_is_refused(desk: Desk, tmp_path: Path) -> None:
    body = {"model": "smol", "method": "vocabulary", "calibration": {"dataset": "my-calibration"}}
    few, enough = {"tokens": USED.least - 80}, {"tokens": USED.least}

    def refused(changes: JsonObject) -> SecateurError:
        with pytest.raises(SecateurError) as raised, transaction(desk.sessions) as session:
            submit(desk.context(session), JobBody.model_validate(body | changes))
        return raised.value

    with transaction(desk.sessions) as session:
        submit(desk.context(session), JobBody.model_validate(body | {"parameters": few}))  # nothing is known yet
    _count(desk, tmp_path)
    error = refused({"parameters": few})
    assert error.param == "parameters.tokens" and "ask for 400 or more" in error.message
    error = refused({"method": "none", "output": {"dtype": "bfloat16"}, "vocabulary": few})
    assert error.param == "vocabulary.tokens"
    with transaction(desk.sessions) as session:
        submit(desk.context(session), JobBody.model_validate(body | {"parameters": enough}))
        session.execute(update(QuestionRow).values(answer={"refusal": "the tokenizer has code of its own"}))
    error = refused({"parameters": enough})
    assert error.param == "model" and "code of its own" in error.message


def test_more_than_the_tokens_goes_by_a_method_beside_them(desk: Desk, tmp_path: Path) -> None:
    before = desk.plan("smol", "speed", amount=0.3)
    _count(desk, tmp_path)
    planned = desk.plan("smol", "speed", amount=0.3)
    assert planned.job["method"] == "frontier" and planned.job["vocabulary"] == {"tokens": "auto"}
    assert planned.job["sparsity"] == pytest.approx(0.3 - GONE, abs=1e-4)
    figures = [each.figures["perplexity_ratio"].estimate for each in (planned, before)]
    assert figures[0] < figures[1], "the blocks lose less"
    kept = desk.plan("smol", "speed", keep_quality=1.2)
    assert "vocabulary" not in kept.job and "With keep_quality all tokens stay" in _choice(kept, "vocabulary").reason
    other_text = _choice(desk.plan("smol", "speed", amount=0.05), "parameters.tokens").reason
    assert "times the perplexity was measured on other text of its kind" in other_text


def test_tokens_that_are_worth_little_or_cannot_go_stay(desk: Desk, tmp_path: Path) -> None:
    _count(desk, tmp_path, CountAnswer(refusal="its tokenizer has code of its own"))
    planned = desk.plan("smol", "speed")
    assert planned.job["method"] == "frontier" and "vocabulary" not in planned.job
    assert _choice(planned, "vocabulary").reason == "no tokens can go: its tokenizer has code of its own"
    with transaction(desk.sessions) as session:
        few = USED.model_copy(update={"kept": WORDS - 6400})
        session.execute(update(QuestionRow).values(answer=CountAnswer(counted=few).model_dump(mode="json")))
    planned = desk.plan("smol", "speed")
    assert "vocabulary" not in planned.job and "too little" in _choice(planned, "vocabulary").reason
    assert all(each.field != "vocabulary" for each in desk.plan("smol", "sparsity").choices)


def test_a_count_that_fails_is_tried_again_and_unused_ones_are_forgotten(desk: Desk, tmp_path: Path) -> None:
    desk.plan("smol", "speed")
    counter = TokenCounter(desk.store, desk.settings, command=(sys.executable, "-c", "raise SystemExit(1)"))
    for attempt in range(1, MOST_ATTEMPTS + 1):
        with transaction(desk.sessions) as session:
            session.execute(update(QuestionRow).values(due_at=func.clock_timestamp()))
        assert counter.take_next(desk.sessions) and _rows(desk)[0].attempts == attempt
    assert _rows(desk)[0].due_at is None and desk.plan("smol", "speed").job["method"] == "frontier"
    with transaction(desk.sessions) as session:
        assert forget_unused(session) == 0
        session.execute(
            update(QuestionRow).where(QuestionRow.kind == COUNT.name).values(used_at=seconds_from_now(-100 * 86400))
        )
        assert forget_unused(session) == 1


def test_the_child_counts_as_a_job_chooses(tmp_path: Path, settings: Settings) -> None:
    folder = save_trained(tmp_path / "trained")
    tokens = json.loads((folder / "config.json").read_text())["vocab_size"]
    text = TextSource(name="numbers", path=write_text(tmp_path / "numbers.txt"), format="text")
    question = CountQuestion(folder=folder, vocabulary_size=tokens, text=text)
    here = count(question)
    assert here.counted is not None and here.counted.used < here.counted.kept < tokens
    asked = ask_child(
        (sys.executable, "-m", "core.pipeline.stages.questions", COUNT.name),
        question.model_dump_json(),
        name="tokens",
        settings=settings,
        on_wait=lambda: None,
    )
    assert CountAnswer.model_validate_json(asked) == here
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json" in (count(question).refusal or "")
