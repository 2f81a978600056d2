"""Traces of passes over language models: a worker makes them beside its jobs, and nobody waits for one."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import seconds_from_now, transaction
from core.pipeline.messages import PassAnswer
from core.service.jobs.admission import needs_of
from core.service.jobs.estimates.traced_needs import COARSE, take_traced_needs
from core.service.jobs.pass_traces import PASS
from core.service.jobs.tables import JobRow
from core.service.questions.queue import MOST_ATTEMPTS, forget_unused
from core.service.questions.tables import QuestionRow
from core.settings import Settings
from core.storage import Store
from secateur_wire.errors import DiscoveryFailed
from worker.supervisor.secluded_child import ask_child
from worker.supervisor.tracer import PassTracer

_GIB = 2**30


def _saying(place: Path, answer: PassAnswer) -> Sequence[str]:
    """Return the command of a child that answers so, whatever it is asked."""
    file = place / "answer.json"
    file.write_text(answer.model_dump_json())
    return sys.executable, "-c", "import sys; print(open(sys.argv[1]).read())", str(file)


def _memory(api: TestClient, body: dict[str, Any]) -> int:
    answer = api.post("/v1/models/inspect", json=body).raise_for_status().json()
    peak: int = answer["estimate"]["peak_memory_bytes"]
    return peak


def _rows(sessions: sessionmaker[Session]) -> list[QuestionRow]:
    with transaction(sessions) as session:
        return list(session.scalars(select(QuestionRow)))


def test_the_second_estimate_of_a_pass_is_by_its_trace(
    api: TestClient, sessions: sessionmaker[Session], settings: Settings, store: Store, job_body: dict[str, Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    rough = _memory(api, job_body)
    assert _memory(api, job_body) == rough, "nobody has traced it yet"
    (row,) = _rows(sessions)
    assert row.due_at is not None and row.kind == PASS.name
    traced = PASS.question.model_validate(row.question).traced
    assert traced.method == job_body["method"] and traced.device == "cpu"
    tracer = PassTracer(store, settings, command=_saying(tmp_path, PassAnswer(peak_bytes=8 * _GIB)))
    assert tracer.take_next(sessions) and not tracer.take_next(sessions)
    (row,) = _rows(sessions)
    assert row.due_at is None and row.answer == {"peak_bytes": 8 * _GIB, "error": None}
    assert _memory(api, job_body) > 8 * _GIB > rough
    assert _memory(api, job_body | {"sparsity": 0.25}) < 8 * _GIB, "another pass has a trace of its own"


def test_a_job_that_waits_gets_the_needs_of_a_trace_that_comes(
    api: TestClient, sessions: sessionmaker[Session], settings: Settings, store: Store, job_body: dict[str, Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    other = api.post("/v1/jobs", json=job_body | {"sparsity": 0.25}).raise_for_status().json()
    with transaction(sessions) as session:
        session.execute(update(QuestionRow).values(due_at=None))
    waiting = api.post("/v1/jobs", json=job_body).raise_for_status().json()
    assert waiting["warnings"] == [COARSE]

    def look() -> int:
        with transaction(sessions) as session:
            return take_traced_needs(session)

    assert look() == 0, "nobody has traced it yet"
    command = _saying(tmp_path, PassAnswer(peak_bytes=8 * _GIB))
    assert PassTracer(store, settings, command=command).take_next(sessions)
    assert (look(), look()) == (1, 0)
    with transaction(sessions) as session:
        needs = needs_of(session.get_one(JobRow, waiting["id"]))
        assert needs_of(session.get_one(JobRow, other["id"])).memory_bytes < 8 * _GIB, "another pass"
    assert needs.memory_bytes == _memory(api, job_body) > 8 * _GIB
    assert api.get(f"/v1/jobs/{waiting['id']}").json()["warnings"] == []


def test_a_trace_that_fails_is_tried_again_and_left_in_the_end(
    api: TestClient, sessions: sessionmaker[Session], settings: Settings, store: Store, job_body: dict[str, Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    rough = _memory(api, job_body)
    tracer = PassTracer(store, settings, command=_saying(tmp_path, PassAnswer(error="ValueNeeded: a sort")))
    for attempt in range(1, MOST_ATTEMPTS + 1):
        with transaction(sessions) as session:
            session.execute(update(QuestionRow).values(due_at=func.clock_timestamp()))
        assert tracer.take_next(sessions) and _rows(sessions)[0].attempts == attempt
        assert not tracer.take_next(sessions), "not at once"
    assert _rows(sessions)[0].due_at is None
    assert _memory(api, job_body) == rough


def test_traces_that_no_estimate_uses_are_forgotten(
    api: TestClient, sessions: sessionmaker[Session], job_body: dict[str, Any]
) -> None:
    _memory(api, job_body)
    with transaction(sessions) as session:
        assert forget_unused(session) == 0
        session.execute(update(QuestionRow).values(used_at=seconds_from_now(-100 * 86400)))
        assert forget_unused(session) == 1


@pytest.mark.nightly
def test_the_child_traces_the_pass_itself(
    api: TestClient, sessions: sessionmaker[Session], settings: Settings, store: Store, job_body: dict[str, Any]
) -> None:
    rough = _memory(api, job_body)
    assert PassTracer(store, settings).take_next(sessions)
    peak = PASS.answer.model_validate(_rows(sessions)[0].answer).peak_bytes
    assert peak is not None and 0 < peak < rough


def test_a_child_may_make_a_file_of_the_models_size_and_none_that_is_larger(settings: Settings) -> None:
    code = "import os, tempfile; os.truncate(tempfile.mkstemp()[1], int(input())); print('made')"
    question = str(_GIB)
    child = (sys.executable, "-c", code)
    answer = ask_child(child, question, name="trace", settings=settings, on_wait=lambda: None, file_bytes=_GIB)
    assert answer == b"made\n"
    with pytest.raises(DiscoveryFailed):
        ask_child(child, question, name="trace", settings=settings, on_wait=lambda: None, file_bytes=_GIB - 1)
