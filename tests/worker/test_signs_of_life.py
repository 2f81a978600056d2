"""Events that say a job goes on where nothing else happens, and what it is at."""

from pathlib import Path
from typing import Any

import pytest

from core.pipeline.messages import ModelPlace
from core.pipeline.stages.write.spec import WriteSpec
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
