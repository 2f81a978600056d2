"""The page of a job: live while it runs, a report when it is over, and what went wrong where it failed."""

import hashlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent
from playwright.sync_api import Page, expect
from sqlalchemy import delete, update
from sqlalchemy.orm import Session, sessionmaker

from core.artifacts.store import Store, artifact_prefix
from core.database import transaction
from core.jobs import queue
from core.jobs.queue import append_event, claim, finish_failed, finish_succeeded, set_progress, set_stage
from core.jobs.tables import JobRow
from core.settings import Settings
from core.teams.tables import PortalSessionRow
from tests.portal.conftest import require_accessible, sign_in
from tests.worker.conftest import eventually
from tests.worker.test_real_runner import register_layers
from worker.processes import spawn
from worker.serve import part_commands, part_environment
from worker.supervisor import Supervisor

Sessions = sessionmaker[Session]
expect.set_options(timeout=15_000)
METRICS: dict[str, Any] = {
    "perplexity": {"numbers": {"dense": 25.04, "pruned": 27.41, "ratio": 1.0946, "sequence_length": 32}},
    "sparsity": {"prunable": 0.5, "model": 0.4},
    "parameters": {"dense": 1000, "nonzero": 600},
    "bytes": {"dense": 310_000, "artifact": 310_000, "packed": 100_000},
    "latency": {"dense_ms": 10.0, "pruned_ms": 9.9, "spread": 0.08, "sequence_length": 32, "device": "cpu"},
    "seconds": {"total": 12.5},
    "peak_memory_bytes": 2**28,
}
REPORT: dict[str, Any] = {
    "layers": [
        {"name": f"model.layers.{layer}.{name}", "layer": layer, "out_features": 8, "in_features": 8, "target": 0.5,
         "zeros": 32, "sparsity": 0.5, "reconstruction_error": 0.1 + 0.05 * layer}
        for layer in range(2) for name in ("self_attn.q_proj", "mlp.up_proj")
    ],
    "notes": ["A note with <b>markup</b>."],
    "generations": [{"prompt": "Once <i>upon</i>", "dense": "a time", "pruned": None}],
}  # fmt: skip


class Running:
    """A job whose worker is the test."""

    def __init__(self, sessions: Sessions, store: Store, job: str) -> None:
        self.sessions, self.store, self.id = sessions, store, job
        self.attempt = 0

    def _write(self, write: Callable[[Session], object]) -> None:
        with transaction(self.sessions) as session:
            assert write(session)

    def begin(self) -> "Running":
        self._write(lambda session: claim(session, queue="default", worker_id="worker_1", lease_seconds=600))
        self.attempt += 1
        return self

    def stage(self, stage: Any) -> None:
        self._write(lambda session: set_stage(session, self.id, self.attempt, stage))

    def progress(self, progress: float) -> None:
        self._write(lambda session: set_progress(session, self.id, self.attempt, progress))

    def log(self, message: str) -> None:
        data = {"level": "info", "message": message}
        self._write(lambda session: append_event(session, self.id, self.attempt, "log", data))

    def metric(self, name: str, step: int, value: float) -> None:
        data = {"name": name, "step": step, "value": value}
        self._write(lambda session: append_event(session, self.id, self.attempt, "metric", data))

    def succeed(self, folder: Path, metrics: Mapping[str, Any] = METRICS, report: Mapping[str, Any] = REPORT) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "secateur.json").write_text("{}")
        files = self.store.publish(folder, artifact_prefix(self.id, self.attempt))
        self._write(
            lambda session: finish_succeeded(
                session, self.id, self.attempt, metrics=metrics, report=report, files=files, stages={"prune": 3.0}
            )
        )

    def fail(self, code: str, message: str) -> None:
        problem = {"code": code, "message": message, "param": None, "retryable": False}
        self._write(lambda session: finish_failed(session, self.id, self.attempt, problem, retry_delay_seconds=0))


@pytest.fixture
def submitted(live_api: httpx.Client, job_body: dict[str, Any], sessions: Sessions, store: Store) -> Running:
    job = live_api.post("/v1/jobs", json=job_body).raise_for_status().json()["id"]
    return Running(sessions, store, job)


def logged(page: Page) -> list[str]:
    return page.locator("#log li > span").all_inner_texts()


def test_a_page_follows_its_job_from_the_queue_to_the_report(portal: Page, submitted: Running, tmp_path: Path) -> None:
    portal.goto(f"/portal/jobs/{submitted.id}")
    expect(portal.locator("#head")).to_contain_text("waiting for a worker of queue default")
    require_accessible(portal)
    submitted.begin()
    submitted.stage("prune")
    for step in range(3):
        submitted.log(f"line {step}")
        submitted.metric("reconstruction_error", step, 0.1 * step)
        submitted.metric("<b>own</b>", step, 1.0)
        submitted.progress(0.25 * (step + 1))
    expect(portal.locator("#log li")).to_have_count(3)
    assert logged(portal) == ["line 0", "line 1", "line 2"]
    expect(portal.locator("#head progress")).to_have_attribute("value", "0.75")
    expect(portal.locator("#head")).to_contain_text("about")
    expect(portal.locator("#announce")).to_have_text("The job is running, stage prune.")
    expect(portal.get_by_role("region", name="Stages")).to_contain_text("since")
    expect(portal.locator("figure.curve")).to_have_count(2)
    expect(portal.locator("figure.curve canvas")).to_have_count(2)
    expect(portal.locator("#curve-reconstruction-error-rows tr")).to_have_count(3)
    expect(portal.get_by_text("<b>own</b>")).not_to_have_count(0)
    require_accessible(portal)
    submitted.succeed(tmp_path / "artifact")
    expect(portal.locator(".verdict")).to_have_text("3.1× smaller, perplexity 25.0 → 27.4, no speed-up expected.")
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


@contextmanager
def api_on(port: int, settings: Settings) -> Iterator[None]:
    """The API as a process of its own, as `secateur serve` starts it, ended as that ends it."""
    settings.home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **part_environment(settings), "SECATEUR_SECRET_KEY": settings.secret_key or ""}
    with open(settings.home / "api.log", "ab") as log:
        command = part_commands("127.0.0.1", port, settings)["api"]
        api = spawn(command, name="api", stdout=log, stderr=subprocess.STDOUT, environment=environment)
    try:
        eventually(lambda: api.is_running() and answers(port), 60)
        yield
    finally:
        api.end(grace_seconds=20)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").is_success
    except httpx.TransportError:
        return False


def test_nothing_is_lost_or_doubled_when_the_api_restarts(
    portal: Page, submitted: Running, settings: Settings, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
        expect(portal.locator("#log li")).to_have_count(60, timeout=20_000)
        assert logged(portal) == said
        submitted.succeed(tmp_path / "artifact")
        expect(portal.locator(".verdict")).to_be_visible()
        assert logged(portal) == said
        portal.goto("about:blank")


def test_a_page_whose_session_ends_gets_no_more_until_somebody_signs_in(
    portal: Page, submitted: Running, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.portal.job_news.KEEP_ALIVE_SECONDS", 0)
    monkeypatch.setattr("api.portal.job_page.LOG_LINES", 2)
    submitted.begin()
    portal.goto(f"/portal/jobs/{submitted.id}")
    submitted.log("before")
    expect(portal.locator("#log li")).to_have_count(1)
    with transaction(submitted.sessions) as session:
        session.execute(delete(PortalSessionRow))
    submitted.log("meanwhile")
    expect(portal.locator("#live")).to_contain_text("You are signed out.")
    assert logged(portal) == ["before"]
    require_accessible(portal)
    other = portal.context.new_page()
    sign_in(other, admin_key)
    portal.bring_to_front()
    expect(portal.locator("#log li")).to_have_count(2)
    assert logged(portal) == ["before", "meanwhile"]
    expect(portal.locator("#live")).to_be_empty()
    submitted.log("after")
    expect(portal.locator("#log li").last).to_contain_text("after")
    assert logged(portal) == ["meanwhile", "after"], "the page keeps the length of its log"
    portal.reload()
    assert logged(portal) == ["meanwhile", "after"]
    expect(portal.get_by_text("The last 2 lines are shown.")).to_be_visible()


def test_a_failed_job_says_what_happened_why_and_what_to_try(portal: Page, submitted: Running) -> None:
    submitted.begin()
    submitted.log("in block 3 <script>alert(1)</script>")
    submitted.fail("out_of_memory", "memory ran out: <script>alert(2)</script>")
    portal.goto(f"/portal/jobs/{submitted.id}")
    expect(portal.get_by_role("heading", name="What went wrong: out of memory")).to_be_visible()
    failure = portal.locator(".failure")
    expect(failure).to_contain_text("memory ran out: <script>alert(2)</script>")
    expect(failure).to_contain_text("Use fewer or shorter calibration and evaluation samples.")
    expect(failure).to_contain_text("in block 3 <script>alert(1)</script>")
    expect(portal.get_by_role("region", name="Attempts")).to_contain_text("Out of memory")
    require_accessible(portal)
    portal.get_by_role("button", name="Retry").click()
    expect(portal.locator("#head")).to_contain_text("waiting for a worker")
    portal.once("dialog", lambda dialog: dialog.accept())
    portal.get_by_role("button", name="Cancel").click()
    expect(portal.locator("#head")).to_contain_text("cancelled")


def test_the_recipe_is_downloaded_run_again_and_changed(
    portal: Page, submitted: Running, live_api: httpx.Client, job_body: dict[str, Any]
) -> None:
    portal.goto(f"/portal/jobs/{submitted.id}")
    with portal.expect_download() as download:
        portal.get_by_role("link", name="Download", exact=True).click()
    first = live_api.get(f"/v1/jobs/{submitted.id}").json()
    recipe = httpx.Response(200, content=Path(download.value.path()).read_bytes()).json()
    assert {name: first[name] for name in recipe} == recipe
    assert recipe["metadata"] == job_body["metadata"] and recipe["evaluation"]["sequence_length"] == 32
    portal.get_by_role("button", name="Rerun").click()
    portal.wait_for_url(lambda url: "/portal/jobs/job_" in url and not url.endswith(submitted.id))
    again = live_api.get(f"/v1/jobs/{portal.url.rsplit('/', 1)[-1]}").json()
    assert {name: again[name] for name in recipe} == recipe
    for name in ("Duplicate", "Fork: change and submit"):
        href = portal.get_by_role("link", name=name).get_attribute("href")
        assert href == f"/portal/new?from={again['id']}"


@pytest.fixture
def browserless(live_api: httpx.Client, admin_key: str) -> Iterator[httpx.Client]:
    """Signed in, without a browser."""
    with httpx.Client(base_url=live_api.base_url, timeout=20) as client:
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
    assert len(messages) == 4, "batches of twenty"
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


def test_a_sensitivity_job_shows_its_chart_and_leads_to_a_job_that_uses_it(
    portal: Page, submitted: Running, live_api: httpx.Client, job_body: dict[str, Any], tmp_path: Path
) -> None:
    asked = {"method": "magnitude", "rates": [0.5, 0.9]}
    body = {
        "model": job_body["model"],
        "method": "sensitivity",
        "parameters": asked,
        "evaluation": job_body["evaluation"],
    }
    live_api.post(f"/v1/jobs/{submitted.id}/cancel").raise_for_status()
    job = live_api.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    dense = {"rate": 0.0, "sparsity": 0.0, "loss": 2.0, "perplexity": 7.4, "ratio": 1.0}
    points = [{**dense, "rate": rate, "sparsity": rate, "loss": 2.0 + rate} for rate in asked["rates"]]
    curves = [{"name": f"model.layers.{n}", "layer": n, "weights": 64, "points": points} for n in range(2)]
    found = {
        "task": "language-model", "method": "magnitude", "pattern": "unstructured", "scope": "layer",
        "rates": asked["rates"], "measured_on": {"dataset": "numbers"}, "dense": dense, "curves": curves,
    }  # fmt: skip
    metrics = {"sensitivity": {"dense": dense, "layers": 2, "rates": 2, "most_sensitive": "model.layers.1"}}
    Running(submitted.sessions, submitted.store, job).begin().succeed(
        tmp_path / "artifact", metrics, {"sensitivity": found}
    )
    portal.goto(f"/portal/jobs/{job}")
    expect(portal.locator(".verdict")).to_contain_text("model.layers.1 loses most")
    portal.locator("img.chart").scroll_into_view_if_needed()
    expect(portal.locator("img.chart")).to_have_js_property("complete", True)
    assert portal.locator("img.chart").evaluate("image => image.naturalWidth") > 0
    require_accessible(portal)
    href = portal.get_by_role("link", name="Prune with rates from it").get_attribute("href")
    assert href == f"/portal/new?model={body['model']}&parameters.allocation=job:{job}"


def test_what_is_not_ones_own_or_no_longer_there(
    visitor: Page, submitted: Running, other_team_key: str, viewer_key: str
) -> None:
    submitted.begin()
    submitted.log("long ago")
    submitted.fail("internal_error", "nothing known")
    with transaction(submitted.sessions) as session:
        session.execute(update(JobRow).values(finished_at=JobRow.created_at))
    with transaction(submitted.sessions) as session:
        assert queue.remove_old_events(session, retention_days=0) == 1
    sign_in(visitor, viewer_key)
    visitor.goto(f"/portal/jobs/{submitted.id}")
    expect(visitor.get_by_text("The log is no longer there")).to_be_visible()
    expect(visitor.get_by_role("button", name="Retry")).to_have_count(0)
    require_accessible(visitor)
    visitor.context.clear_cookies()
    sign_in(visitor, other_team_key)
    for path in ("", "/stream", "/log", "/recipe.json", "/layers.svg", "/files/model.safetensors"):
        found = visitor.request.get(f"/portal/jobs/{submitted.id}{path}")
        assert found.status == 404, path
    visitor.goto(f"/portal/jobs/{submitted.id}")
    expect(visitor.get_by_text(f"there is no job '{submitted.id}'")).to_be_visible()


def test_a_real_job_is_watched_to_its_report(
    portal: Page, settings: Settings, sessions: Sessions, store: Store, team: str, live_api: httpx.Client
) -> None:
    body = register_layers(sessions, settings, team)
    job = live_api.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    portal.goto(f"/portal/jobs/{job}")
    chosen = settings.model_copy(update={"threads": 1, "device": "cpu", "home": settings.home.resolve()})

    def work() -> None:
        with transaction(sessions) as session:
            taken = claim(session, queue="default", worker_id="a thread", lease_seconds=60)
        assert taken is not None
        Supervisor(chosen, sessions, store, stop=threading.Event()).run(taken)

    worker = threading.Thread(target=work)
    worker.start()
    expect(portal.locator("#curve-reconstruction-error canvas")).to_be_visible(timeout=60_000)
    expect(portal.locator(".verdict")).to_contain_text("perplexity", timeout=60_000)
    worker.join()
    expect(portal.locator(".verdict")).to_contain_text("zero")
    expect(portal.locator("#curve-reconstruction-error-rows tr")).to_have_count(6)
    expect(portal.get_by_role("region", name="Evaluations")).to_contain_text("perplexity, words")
    require_accessible(portal)
    with portal.expect_download() as download:
        portal.get_by_role("link", name="model.safetensors").click()
    digest = hashlib.sha256(Path(download.value.path()).read_bytes()).hexdigest()
    expect(portal.get_by_text(digest)).to_be_visible()
