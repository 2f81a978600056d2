"""Events that say a job goes on where nothing else happens, and what it is at."""

from pathlib import Path
from typing import Any

import pytest

from core.database import transaction
from core.pipeline.messages import ModelPlace
from core.pipeline.stages.write.spec import WriteSpec
from core.service.jobs import service
from core.service.jobs.tables import AttemptRow
from tests.sources.conftest import write_wordy_model
from tests.worker.conftest import Queue, StartWorker
from worker.runner.client import run_task
from worker.runner.messages import AliveMessage, Message, ProgressMessage
from worker.supervisor import recorder


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sign of life is told."""
    monkeypatch.setattr(recorder, "SIGN_SECONDS", 0.0)


@pytest.mark.usefixtures("always")
def test_what_the_runner_is_at_is_told_until_the_next_stage(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit(job_body)
    assert start_worker(doing=["layers: 3 of 30", "layers: 4 of 30"]).result() == "succeeded"
    events = jobs.events(job_id)
    doing = [event.data["doing"] for event in events if "doing" in event.data]
    assert list(dict.fromkeys(doing))[:2] == ["layers: 3 of 30", "layers: 4 of 30"]
    evaluated = next(number for number, event in enumerate(events) if event.data.get("stage") == "evaluate")
    assert {event.data.get("doing") for event in events[evaluated:]} <= {None, "storing the artifact"}
    progress = [event.data["progress"] for event in events if event.type == "progress"]
    assert progress == sorted(progress)


@pytest.mark.usefixtures("always")
def test_stages_without_a_runner_give_signs_of_life_too(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit(job_body)
    start_worker().result()
    events = jobs.events(job_id)
    entered = {event.data["stage"]: number for number, event in enumerate(events) if event.type == "stage"}
    signs = [number for number, event in enumerate(events) if event.type == "progress"]
    assert any(number < entered["open"] for number in signs), "fetch"
    assert any(number > entered["store"] for number in signs), "store"


@pytest.mark.usefixtures("always")
def test_a_runner_that_stands_still_gives_none(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit(job_body)
    worker = start_worker(hang_in="prune")
    jobs.runner_pids(job_id)
    with transaction(jobs.sessions) as session:
        service.cancel(session, jobs.team, job_id)
    assert worker.result() == "cancelled"
    last = [event.type for event in jobs.events(job_id) if event.data.get("status") not in ("cancelling", "cancelled")]
    assert last[-1] == "log", "nothing after its last word"


def test_the_runner_itself_says_that_it_lives_and_how_far_its_own_text_is(tmp_path: Path) -> None:
    heard: list[Message] = []
    run_task(
        WriteSpec(
            model=ModelPlace(path=write_wordy_model(tmp_path / "model")),
            target=tmp_path / "text.jsonl",
            samples=4,
            sequence_length=24,
            seed=0,
            work=tmp_path / "work",
            device="cpu",
            threads=1,
        ),
        log=tmp_path / "runner.log",
        on_message=heard.append,
        on_wait=lambda: None,
        grace_seconds=1,
    )
    assert any(isinstance(message, AliveMessage) for message in heard)
    progress = [message.progress for message in heard if isinstance(message, ProgressMessage)]
    assert len(progress) > 10 and 0 <= min(progress) < 0.2 < max(progress) <= 1


def test_a_job_that_missed_its_gate_leaves_what_it_took(
    jobs: Queue, job_body: dict[str, Any], start_worker: StartWorker
) -> None:
    job_id = jobs.submit({**job_body, "gates": {"max_perplexity_ratio": 1.5}})
    assert start_worker(ratio=2.0).result() == "failed"
    with transaction(jobs.sessions) as session:
        attempt = session.get_one(AttemptRow, (job_id, 1))
        assert attempt.error_code == "gate_missed" and attempt.measured is not None
        assert attempt.measured["seconds"] > 0
