"""The page of a job while it runs: live, and nothing lost or doubled whatever happens to its stream."""

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import cycle
from pathlib import Path

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent
from playwright.sync_api import Page, Route, expect
from sqlalchemy import delete

from bench.parts import free_port
from core.database import transaction
from core.service.jobs.tables import JobRow
from core.service.teams.tables import PortalSessionRow
from core.settings import Settings
from tests.portal.browserless import Browserless
from tests.portal.conftest import hand_in_key, require_accessible
from tests.portal.running_job import Running
from tests.serving import lent_app, served
from tests.worker.conftest import eventually
from worker.embedded.serve import part_commands, part_environment
from worker.processes import spawn


def logged(page: Page) -> list[str]:
    return page.locator("#log li > span").all_inner_texts()


def test_a_page_follows_its_job_from_the_queue_to_the_report(portal: Page, submitted: Running, tmp_path: Path) -> None:
    expect_seconds(submitted, 1500.0)
    portal.goto(f"/portal/jobs/{submitted.id}")
    expect(portal.locator("#head")).to_contain_text("waiting for a worker of queue default")
    require_accessible(portal)
    submitted.begin()
    submitted.has_run_for(1500.0)  # by the estimate nothing would be left
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
    expect(portal.locator("#head")).to_contain_text("Prune. The calibration text goes through the model")
    expect(portal.locator("#curve-reconstruction-error")).to_contain_text(
        "0 is no change. A block that stands out lost most"
    )
    expect(portal.locator("#announce")).to_have_text("The job is running, stage prune.")
    expect(portal.get_by_role("region", name="Stages")).to_contain_text("since")
    expect(portal.locator("figure.curve")).to_have_count(3)
    expect(portal.locator("figure.curve canvas")).to_have_count(2)  # one point is no curve
    expect(portal.locator("#curve-reconstruction-error .u-legend")).to_contain_text("0.2")
    expect(portal.locator("#curve-reconstruction-error-rows tr")).to_have_count(3)
    expect(portal.get_by_text("<b>own</b>")).not_to_have_count(0)
    require_accessible(portal)
    submitted.succeed(tmp_path / "artifact")
    expect(portal.locator(".verdict")).to_have_text(
        "Close to dense: 3.1× smaller, perplexity 25.0 → 27.4, no difference seen in time (± 8 %)."
    )
    expect(portal.get_by_text("Perplexity on numbers is 1.09 times the dense model's")).to_be_visible()
    expect(portal.get_by_text("A note with <b>markup</b>.")).to_be_visible()
    expect(portal.get_by_role("heading", name="Once <i>upon</i>")).to_be_visible()
    expect(portal.locator("#actions")).not_to_contain_text("Cancel")
    expect(portal.locator("#live")).to_be_empty()
    portal.locator("img.chart").scroll_into_view_if_needed()
    expect(portal.locator("img.chart")).to_have_js_property("complete", True)
    assert portal.locator("img.chart").evaluate("image => image.naturalWidth") > 0
    require_accessible(portal)
    with portal.expect_download() as download:
        portal.get_by_role("link", name="model.safetensors").click()
    content = Path(download.value.path()).read_bytes()
    expect(portal.get_by_text(hashlib.sha256(content).hexdigest())).to_be_visible()
    portal.reload()
    assert logged(portal) == ["line 0", "line 1", "line 2"]
    expect(portal.locator("figure.curve canvas")).to_have_count(2)


def test_a_page_follows_its_job_though_its_scripts_come_slowly(portal: Page, submitted: Running) -> None:
    late: list[Route] = []
    portal.route("**/hx-sse.min.js*", lambda route: late.append(route))
    portal.goto(f"/portal/jobs/{submitted.id}", wait_until="commit")
    portal.evaluate("new Promise(function look(done) { setTimeout(window.htmx ? done : () => look(done), 50) })")
    for each in late:
        each.continue_()
    submitted.begin()
    submitted.log("a line")
    expect(portal.locator("#log li")).to_have_count(1)


def test_a_page_whose_first_connection_fails_says_so_and_tries_again(portal: Page, submitted: Running) -> None:
    failures: Iterator[Callable[[Route], None]] = cycle(
        [lambda route: route.abort("connectionreset"), lambda route: route.fulfill(status=503, body="not now")]
    )
    is_down = True
    portal.route("**/stream?*", lambda route: next(failures)(route) if is_down else route.continue_())
    portal.clock.install()
    portal.goto(f"/portal/jobs/{submitted.id}")
    for _ in range(2):
        expect(portal.locator("#live")).to_have_text(re.compile("^The connection is lost"))
        with portal.expect_request("**/stream?*"):
            portal.clock.fast_forward(2_000)
    is_down = False
    portal.clock.fast_forward(2_000)
    expect(portal.locator("#live")).to_be_empty()
    submitted.begin()
    submitted.log("a line")
    expect(portal.locator("#log li")).to_have_count(1)


def expect_seconds(job: Running, seconds: float, deviation: float | None = None) -> None:
    with transaction(job.sessions) as session:
        row = session.get_one(JobRow, job.id)
        basis = {"jobs": 3, "formula": {}, "seconds_deviation": deviation}
        row.estimate = {**(row.estimate or {}), "seconds": seconds, "basis": basis}


def seconds_in(words: str) -> int:
    """The whole seconds in "3 min 20 s" and "20 s ago"."""
    found = re.search(r"(?:(\d+) min )?\b(\d+) s\b", words)
    assert found is not None and "." not in words, f"{words!r} is not counted by the page"
    return 60 * int(found[1] or 0) + int(found[2])


def test_a_running_page_goes_on_counting_between_events_and_promises_nothing_that_is_over(
    portal: Page, submitted: Running
) -> None:
    expect_seconds(submitted, 1500.0, deviation=0.3)
    submitted.begin()
    submitted.stage("prune")
    portal.clock.install()
    with portal.expect_response("**/stream?*"):
        portal.goto(f"/portal/jobs/{submitted.id}")
    elapsed, left, silent = (portal.locator(f'[data-clock="{name}"]') for name in ("elapsed", "left", "silent"))
    expect(left).to_have_text("15 to 41 min left")
    portal.clock.run_for(1_000)  # until then it is the server that says how long, and to a tenth
    before = [seconds_in(each.inner_text()) for each in (elapsed, silent)]
    portal.clock.fast_forward(90_000)
    after = [seconds_in(each.inner_text()) for each in (elapsed, silent)]
    assert after[0] >= before[0] + 90 and after[1] >= before[1] + 90
    expect(portal.locator("time[data-ago]").first).to_have_text("1 min ago")
    portal.clock.fast_forward(210_000)
    expect(left).to_have_text(re.compile("^10 to 3[56] min left$"))
    portal.clock.fast_forward(1_500_000)
    expect(left).to_have_text(re.compile(r"^up to \d+ min left$"))
    portal.clock.fast_forward(900_000)
    expect(left).to_have_text("takes longer than expected")
    submitted.progress(0.0, doing="trying the model without each: 3 of 30")
    expect(portal.locator("#head .doing")).to_have_text("trying the model without each: 3 of 30")
    expect(silent).to_have_text(re.compile(r"^\d+ s ago$"))
    portal.clock.fast_forward(90_000)
    expect(silent).to_have_text(re.compile(r"^\d+ min \d+ s ago$"))
    submitted.log("a line, which leaves the head as it is")
    expect(silent).to_have_text(re.compile(r"^\d+ s ago$"))
    portal.reload()
    expect(portal.locator("#head .doing")).to_have_text("trying the model without each: 3 of 30")
    submitted.stage("evaluate")
    expect(portal.locator("#head .doing")).to_have_count(0)


def test_a_page_opened_when_the_estimate_is_over_says_so(
    submitted: Running, live_api: httpx.Client, admin_key: str
) -> None:
    expect_seconds(submitted, 100.0)
    submitted.begin()
    submitted.has_run_for(150.0)
    browser = Browserless(live_api, admin_key)
    page = browser.http.get(f"/portal/jobs/{submitted.id}").text
    assert "takes longer than the expected about 2 min" in page and " left</span>" not in page
    browser.close()


PATIENCE = 60_000
"""Milliseconds of a page's own clock after which a lost stream is asked for again: no delay is longer."""


@contextmanager
def api_in_a_thread(port: int, settings: Settings) -> Iterator[None]:
    """The API in this process, ended without waiting for its streams."""
    with lent_app(settings) as app, served(app, port, grace_seconds=0):
        yield


@contextmanager
def api_of_its_own(port: int, settings: Settings) -> Iterator[None]:
    """The API as a process of its own, as `secateur serve` starts it, ended as that ends it."""
    settings.home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **part_environment(settings), "SECATEUR_SECRET_KEY": settings.secret_key or ""}
    with open(settings.home / "api.log", "ab") as log:
        command = part_commands("127.0.0.1", port, settings)["api"]
        api = spawn(command, name="api", stdout=log, stderr=subprocess.STDOUT, environment=environment)
    try:
        eventually(lambda: api.is_running() and answers(port))
        yield
    finally:
        api.end(grace_seconds=20)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    "api_on", [api_in_a_thread, pytest.param(api_of_its_own, marks=pytest.mark.nightly)], ids=["thread", "process"]
)
def test_nothing_is_lost_or_doubled_when_the_api_restarts(
    portal: Page,
    submitted: Running,
    settings: Settings,
    tmp_path: Path,
    api_on: Callable[[int, Settings], AbstractContextManager[None]],
) -> None:
    portal.clock.install()
    port = free_port()
    submitted.begin()
    said = [f"line {number}" for number in range(60)]
    lines = iter(said)
    with api_on(port, settings):
        portal.goto(f"http://127.0.0.1:{port}/portal/jobs/{submitted.id}")
        for _ in range(5):
            submitted.log(next(lines))
        expect(portal.locator("#log li")).to_have_count(5)
        for _ in range(25):
            submitted.log(next(lines))
    for _ in range(10):
        submitted.log(next(lines))
    expect(portal.locator("#live")).to_contain_text("connection is lost")
    require_accessible(portal)
    with api_on(port, settings):
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
    require_accessible(portal)
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


def test_charts_are_drawn_once_and_files_come_in_ranges(
    browserless: httpx.Client, submitted: Running, tmp_path: Path
) -> None:
    here = f"/portal/jobs/{submitted.id}"
    assert browserless.get(f"{here}/layers.svg").status_code == 404
    submitted.begin().succeed(tmp_path / "artifact")
    chart = browserless.get(f"{here}/layers.svg")
    assert chart.headers["content-type"] == "image/svg+xml" and "q_proj" in chart.text
    again = browserless.get(f"{here}/layers.svg", headers={"If-None-Match": chart.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert browserless.get(f"{here}/sensitivity.svg").status_code == 404
    part = browserless.get(f"{here}/files/model.safetensors", headers={"Range": "bytes=0-2"})
    assert (part.status_code, part.content) == (206, b"wei")
    assert browserless.get(f"{here}/files/nothing").status_code == 404
