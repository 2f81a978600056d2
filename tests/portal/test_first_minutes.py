"""A portal in which there is nothing yet: each page says what will be there, and one click makes a first model."""

from collections.abc import Callable
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.samples import queue
from core.settings import Settings
from core.storage import Store
from tests.runner.models import write_model, write_words
from worker.samples.first_job import first_job
from worker.samples.language import CALIBRATION, EVALUATION, MODEL
from worker.samples.requested import Samples, fulfil

POLLED = 2_000
"""Milliseconds of a page's own clock until it asks how far the samples are."""


def tiny_samples() -> Samples:
    """A model and texts of the samples' names, that need no network."""

    def texts(folder: Path, say: Callable[[str], None]) -> dict[str, Path]:
        return {name: write_words(folder / f"{name}.txt") for name in (CALIBRATION, EVALUATION)}

    return Samples(
        model_name=MODEL,
        model_source="tiny",
        model=lambda folder, say: write_model(folder / "model", 2),
        text_names=(CALIBRATION, EVALUATION),
        text_source="tiny",
        texts=texts,
        first_job={
            **first_job(),
            "sparsity": 0.3,
            "calibration": {"dataset": CALIBRATION, "samples": 2, "sequence_length": 16},
            "evaluation": {"datasets": [EVALUATION], "samples": 2, "sequence_length": 16},
            "output": {"dtype": "bfloat16"},
        },
    )


def _claim(sessions: sessionmaker[Session]) -> queue.ClaimedSample:
    with transaction(sessions) as session:
        claimed = queue.claim(session, worker_id="worker_1", lease_seconds=60)
    assert claimed is not None
    return claimed


def test_one_click_in_an_empty_portal_leads_to_the_first_job(
    portal: Page,
    live_api: httpx.Client,
    settings: Settings,
    sessions: sessionmaker[Session],
    store: Store,
) -> None:
    portal.clock.install()
    portal.goto("/portal/jobs")
    portal.get_by_role("button", name="Prune a sample model").click()
    expect(portal.get_by_role("heading", name="A first pruned model")).to_be_visible()
    claimed = _claim(sessions)
    with transaction(sessions) as session:
        assert queue.note_step(session, claimed, "Converting the model to safetensors…")
    portal.clock.run_for(POLLED)
    expect(portal.get_by_text("Converting the model")).to_be_visible()
    fulfil(settings, sessions, store, claimed, tiny_samples())
    portal.clock.run_for(POLLED)
    portal.wait_for_url("**/portal/jobs/job_*")
    job = live_api.get(f"/v1/jobs/{portal.url.rsplit('/', 1)[-1]}").json()
    assert (job["model"], job["pattern"], job["status"]) == (MODEL, "structured", "queued")
    assert (job["method"], job["output"]["dtype"]) == ("depth", "bfloat16"), "the job of the demo"
    assert job["evaluation"]["datasets"] == [EVALUATION]
    again = live_api.post("/v1/samples", json={}).raise_for_status().json()
    fulfil(settings, sessions, store, _claim(sessions), tiny_samples())
    ended = live_api.get(f"/v1/samples/{again['id']}").json()
    assert (ended["state"], ended["job_id"]) == ("ready", None), "what is there already is left as it is"


def test_samples_that_cannot_be_fetched_are_told_and_those_lost_again_and_again_given_up(
    live_api: httpx.Client, settings: Settings, sessions: sessionmaker[Session], store: Store
) -> None:
    first = live_api.post("/v1/samples", json={"goal": "size"}).json()["id"]
    assert live_api.post("/v1/samples", json={}).json()["id"] == first, "one at a time"
    broken = Samples(**{**vars(tiny_samples()), "model": lambda folder, say: write_words(folder / "model").parent})
    fulfil(settings, sessions, store, _claim(sessions), broken)
    assert "config.json" in live_api.get(f"/v1/samples/{first}").json()["error"]["message"]
    again = live_api.post("/v1/samples", json={}).json()["id"]
    assert again != first
    for _ in range(queue.MOST_ATTEMPTS):
        lost = _claim(sessions)
        with transaction(sessions) as session:
            assert queue.renew(session, lost, -1)
    with transaction(sessions) as session:
        assert queue.claim(session, worker_id="worker_2", lease_seconds=60) is None
        assert not queue.succeed(session, lost, None), "what was given up is over"
    assert "ended before they had them" in live_api.get(f"/v1/samples/{again}").json()["error"]["message"]
