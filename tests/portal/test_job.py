"""The page of a job while it runs: live, and nothing lost or doubled whatever happens to its stream."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent
from playwright.sync_api import Page, expect
from sqlalchemy import delete

from bench.parts import free_port
from core.database import transaction
from core.service.teams.tables import PortalSessionRow
from core.settings import Settings
from tests.portal.conftest import hand_in_key
from tests.portal.running_job import Running
from tests.serving import lent_app, served


def logged(page: Page) -> list[str]:
    return page.locator("#log li > span").all_inner_texts()


def test_a_page_follows_its_job_from_the_queue_to_the_report(portal: Page, submitted: Running, tmp_path: Path) -> None:
    portal.goto(f"/portal/jobs/{submitted.id}")
    expect(portal.locator("#head")).to_contain_text("waiting for a worker of queue default")
    submitted.begin()
    submitted.stage("prune")
    submitted.metric("perplexity", 0, 25.0)
    for step in range(3):
        submitted.log(f"line {step}")
        submitted.metric("reconstruction_error", step, 0.1 * step)
        submitted.metric("<b>own</b>", step, 1.0)
        submitted.progress(0.25 * (step + 1), seconds_left=[540.0, 540.0])
    expect(portal.locator("#log li > span")).to_have_count(3)
    assert logged(portal) == ["line 0", "line 1", "line 2"]
    expect(portal.locator("#log li").first).to_contain_text("stage prune")
    expect(portal.locator("#head progress")).to_have_attribute("value", "0.75")
    expect(portal.locator("#head")).to_contain_text("about 9 min left")
    expect(portal.locator("#announce")).to_have_text("The job is running, stage prune.")
    expect(portal.locator("figure.curve")).to_have_count(3)
    expect(portal.locator("figure.curve canvas")).to_have_count(2)  # one point is no curve
    expect(portal.get_by_text("<b>own</b>")).not_to_have_count(0)
    submitted.succeed(tmp_path / "artifact")
    expect(portal.locator(".verdict")).to_have_text(
        "Close to dense: 3.1× smaller, perplexity 25.0 → 27.4, no difference seen in time (± 8 %)."
    )
    expect(portal.get_by_text("A note with <b>markup</b>.")).to_be_visible()
    expect(portal.get_by_role("heading", name="Once <i>upon</i>")).to_be_visible()
    expect(portal.locator("#actions")).not_to_contain_text("Cancel")
    expect(portal.locator("#live")).to_be_empty()
    with portal.expect_download() as download:
        portal.get_by_role("link", name="model.safetensors").click()
    content = Path(download.value.path()).read_bytes()
    expect(portal.get_by_text(hashlib.sha256(content).hexdigest())).to_be_visible()
    portal.reload()
    assert logged(portal) == ["line 0", "line 1", "line 2"]
    expect(portal.locator("figure.curve canvas")).to_have_count(2)


PATIENCE = 60_000
"""Milliseconds of a page's own clock after which a lost stream is asked for again: no delay is longer."""


@contextmanager
def api_at(port: int, settings: Settings) -> Iterator[None]:
    """The API in this process, ended without waiting for its streams."""
    with lent_app(settings) as app, served(app, port, grace_seconds=0):
        yield


def test_nothing_is_lost_or_doubled_when_the_api_restarts(
    portal: Page, submitted: Running, settings: Settings, tmp_path: Path
) -> None:
    portal.clock.install()
    port = free_port()
    submitted.begin()
    said = [f"line {number}" for number in range(60)]
    lines = iter(said)
    with api_at(port, settings):
        portal.goto(f"http://127.0.0.1:{port}/portal/jobs/{submitted.id}")
        for _ in range(5):
            submitted.log(next(lines))
        expect(portal.locator("#log li")).to_have_count(5)
        for _ in range(25):
            submitted.log(next(lines))
    for _ in range(10):
        submitted.log(next(lines))
    expect(portal.locator("#live")).to_contain_text("connection is lost")
    with api_at(port, settings):
        for line in lines:
            submitted.log(line)
        portal.clock.run_for(PATIENCE)
        expect(portal.locator("#log li")).to_have_count(60)
        assert logged(portal) == said
        submitted.succeed(tmp_path / "artifact")
        expect(portal.locator(".verdict")).to_be_visible()
        assert logged(portal) == said
        portal.goto("about:blank")


def test_a_page_whose_session_ends_gets_no_more_until_somebody_signs_in(
    portal: Page, submitted: Running, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.portal.views.job_page.LOG_LINES", 2)
    submitted.begin()
    portal.clock.install()
    portal.goto(f"/portal/jobs/{submitted.id}")
    submitted.log("before")
    expect(portal.locator("#log li")).to_have_count(1)
    with transaction(submitted.sessions) as session:
        session.execute(delete(PortalSessionRow))
    submitted.log("meanwhile")
    expect(portal.locator("#live")).to_contain_text("Your session has expired")
    assert logged(portal) == ["before"]
    hand_in_key(portal, admin_key)
    portal.clock.run_for(PATIENCE)
    expect(portal.locator("#log li")).to_have_count(2)
    assert logged(portal) == ["before", "meanwhile"]
    expect(portal.locator("#live")).to_be_empty()
    submitted.log("after")
    expect(portal.locator("#log li").last).to_contain_text("after")
    assert logged(portal) == ["meanwhile", "after"], "the page keeps the length of its log"
    portal.reload()
    assert logged(portal) == ["meanwhile", "after"]
    expect(portal.get_by_text("The last 2 lines are shown.")).to_be_visible()


@pytest.fixture
def browserless(live_api: httpx.Client, admin_key: str) -> Iterator[httpx.Client]:
    """Signed in, without a browser."""
    with httpx.Client(base_url=live_api.base_url) as client:
        assert client.post("/portal/sign-in", data={"key": admin_key}).status_code == 303
        yield client


def stream(client: httpx.Client, job: str, last: int | None = None) -> Iterator[ServerSentEvent]:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    with client.stream("GET", f"/portal/jobs/{job}/stream?after=0", headers=headers) as response:
        assert response.status_code == 200, response.read()
        yield from EventSource(response).iter_sse()


def test_a_stream_cut_after_any_message_is_taken_up_with_the_next(
    browserless: httpx.Client, submitted: Running, tmp_path: Path
) -> None:
    """One client meanwhile reads nothing of what it asked for."""
    submitted.begin()
    said = [f"line {number}" for number in range(50)]
    with browserless.stream("GET", f"/portal/jobs/{submitted.id}/stream"):
        for line in said:
            submitted.log(line)
        submitted.succeed(tmp_path / "artifact")
        messages = list(stream(browserless, submitted.id))
    assert messages[-1].event == "over" and "Files" in messages[-2].data
    assert len(messages) == 5, "four events, then batches of twenty"
    for cut in range(1, len(messages)):
        taken = messages[:cut] + list(stream(browserless, submitted.id, int(messages[cut - 1].id)))
        html = "".join(message.data for message in taken)
        places = [html.index(f"<span>{line}</span>") for line in said]
        assert places == sorted(places) and html.count("<li id=") == len(said)
    assert "Cancel this job" not in messages[-2].data
    whole = browserless.get(f"/portal/jobs/{submitted.id}").text
    assert whole.count("<li id=") == len(said) and "hx-sse:connect" not in whole
    log = browserless.get(f"/portal/jobs/{submitted.id}/log").text.splitlines()
    assert [line.rsplit(": ", 1)[-1] for line in log] == said
