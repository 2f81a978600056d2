"""The page of a job that is over: its figures, its files, its recipe, or what went wrong."""

import re
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, expect
from sqlalchemy import update

from core.database import transaction
from core.service.jobs import queue
from core.service.jobs.tables import JobRow
from tests.answers import compared
from tests.portal.browserless import Browserless
from tests.portal.conftest import hand_in_key, require_accessible
from tests.portal.running_job import METRICS, Running


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
    portal.get_by_text("Cancel…").click()
    portal.get_by_role("button", name="Cancel the job").click()
    expect(portal.locator("#head")).to_contain_text("cancelled")


def test_a_model_worse_than_the_team_s_own_random_one_is_said_to_be(
    submitted: Running, live_api: httpx.Client, admin_key: str, job_body: dict[str, Any], tmp_path: Path
) -> None:
    live_api.post(f"/v1/jobs/{submitted.id}/cancel").raise_for_status()
    random = {"method": "random", "calibration": None}
    for number, (changes, ratio) in enumerate(
        [({}, 9.0), (random, 5.0), (random | {"sparsity": 0.6}, 1.1), (random | {"pattern": "2:4"}, 1.2)]
    ):
        job = live_api.post("/v1/jobs", json=job_body | changes).raise_for_status().json()["id"]
        figures = {**METRICS["perplexity"]["numbers"], "pruned": 25.04 * ratio, "ratio": ratio}
        measured = METRICS | {"perplexity": {"numbers": figures}}
        Running(submitted.sessions, submitted.store, job).begin().succeed(tmp_path / str(number), measured)
    first, *others = reversed(live_api.get("/v1/jobs?status=succeeded").json()["data"])
    assert first["verdict"]["words"] == "unusable" and not first["verdict"]["worse_than_random"]
    alone = live_api.get(f"/v1/jobs/{first['id']}").json()["verdict"]
    assert alone["words"] == "unusable, and worse than random would do"
    assert alone["reason"].endswith("after removing as much at random it was measured to be 5 times the dense model's")
    assert all("random" not in live_api.get(f"/v1/jobs/{each['id']}").json()["verdict"]["words"] for each in others)
    somebody = Browserless(live_api, admin_key)
    assert "Unusable, and worse than random would do: 3.1× smaller" in somebody.main(f"/portal/jobs/{first['id']}")
    somebody.close()


def test_the_recipe_is_downloaded_and_reused(
    submitted: Running, live_api: httpx.Client, admin_key: str, job_body: dict[str, Any]
) -> None:
    somebody, page = Browserless(live_api, admin_key), f"/portal/jobs/{submitted.id}"
    assert re.search(rf'<a[^>]* href="{page}/recipe.json"[^>]*>Download</a>', somebody.main(page))
    answer = somebody.http.get(f"{page}/recipe.json")
    assert answer.headers["content-disposition"].startswith("attachment")
    first, recipe = live_api.get(f"/v1/jobs/{submitted.id}").json(), answer.json()
    assert {name: first[name] for name in recipe} == recipe
    assert recipe["metadata"] == job_body["metadata"] and recipe["evaluation"]["sequence_length"] == 32
    assert re.search(rf'<a[^>]* href="/portal/new\?from={submitted.id}"[^>]*>Reuse</a>', somebody.main(page))
    somebody.close()


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
    href = portal.get_by_role("link", name="Prune with these rates").get_attribute("href")
    assert href == f"/portal/new?model={body['model']}&parameters.allocation=job:{job}"


def test_a_model_that_no_longer_answers_says_so_first_and_shows_both_answers(
    portal: Page,
    submitted: Running,
    live_api: httpx.Client,
    admin_key: str,
    job_body: dict[str, Any],
    tmp_path: Path,
) -> None:
    def answer(text: str, **more: Any) -> dict[str, Any]:
        return {"text": text, "tokens": 3, "ended": True, "passed": True, **more}

    row = {
        "question": "How far is it? <b>", "line": 7, "kl": 4.1, "check": "number", "reference": 12,
        "dense": answer("It is 12 km away.", thought="ten and two"),
        "pruned": answer("It is <i>km km</i> away.", ended=False, passed=False),
    }  # fmt: skip
    measured = METRICS | {"answers": {"chats": compared(4.0, 0.3)}}
    rows = [row | {"line": number} for number in range(6)]
    submitted.begin().succeed(tmp_path / "artifact", measured, {"answers": {"chats": rows}})
    portal.goto(f"/portal/jobs/{submitted.id}")
    expect(portal.locator(".verdict")).to_have_text(re.compile("^No longer answers; by perplexity "))
    shown = portal.locator(".generation").first
    expect(shown).to_contain_text("How far is it? <b>")
    expect(shown.locator("mark")).to_have_text([" 12 km", " <i>km km</i>"])
    expect(shown).to_contain_text("3 tokens, cut off at the limit, wrong")
    expect(portal.get_by_text("2 more questions")).to_be_visible()
    evaluations = portal.get_by_role("region", name="Evaluations")
    expect(evaluations).to_contain_text("KL a token along the dense answers, chats")
    require_accessible(portal)
    other = live_api.post("/v1/jobs", json=job_body).raise_for_status().json()["id"]
    somebody = Browserless(live_api, admin_key)
    compared_page = somebody.main(f"/portal/compare?job={submitted.id}&job={other}")
    assert re.search(r'<p class="verdict">[^<]*: no longer answers\.</p>', compared_page)
    somebody.close()


def test_what_is_not_ones_own_or_no_longer_there(
    visitor: Page, live_api: httpx.Client, submitted: Running, other_team_key: str, viewer_key: str
) -> None:
    submitted.begin()
    submitted.log("long ago")
    submitted.fail("internal_error", "nothing known")
    with transaction(submitted.sessions) as session:
        session.execute(update(JobRow).values(finished_at=JobRow.created_at))
    with transaction(submitted.sessions) as session:
        assert queue.remove_old_events(session, retention_days=0) == 1
    hand_in_key(visitor, viewer_key)
    visitor.goto(f"/portal/jobs/{submitted.id}")
    expect(visitor.get_by_text("The log was removed on")).to_be_visible()
    expect(visitor.get_by_role("button", name="Retry")).to_have_count(0)
    require_accessible(visitor)
    stranger = Browserless(live_api, other_team_key)
    for path in ("", "/stream", "/log", "/recipe.json", "/layers.svg", "/files/model.safetensors"):
        assert stranger.http.get(f"/portal/jobs/{submitted.id}{path}").status_code == 404, path
    assert f"there is no job &#39;{submitted.id}&#39;" in stranger.http.get(f"/portal/jobs/{submitted.id}").text
    stranger.close()
