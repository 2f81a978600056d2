"""Gates in the portal: set in the form of a new job, and beside their figures on the page of one that is over."""

import re
from typing import Any

import httpx
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker

from core.service.jobs.gates import evaluate_gates, gates_report
from core.storage import Store
from secateur_wire.job_body import Gates
from secateur_wire.metrics import Metrics
from tests.portal.browserless import Browserless
from tests.portal.conftest import require_accessible
from tests.portal.running_job import METRICS, REPORT, Running

GATES = {"max_perplexity_ratio": 1.05, "max_latency_ratio": 1.5, "max_bytes": 150_000}


def test_a_job_that_missed_a_gate_shows_every_limit_beside_its_figure(
    portal: Page,
    live_api: httpx.Client,
    job_body: dict[str, Any],
    sessions: sessionmaker[Session],
    store: Store,
) -> None:
    job = live_api.post("/v1/jobs", json=job_body | {"gates": GATES}).raise_for_status().json()["id"]
    running = Running(sessions, store, job).begin()
    portal.goto(f"/portal/jobs/{job}")
    expect(portal.get_by_text("at most 150,000")).to_be_visible()
    gates = Gates.model_validate(GATES)
    found = gates_report(gates, evaluate_gates(gates, Metrics.model_validate(METRICS))).document()
    running.fail("gate_missed", str(found["missed"]), metrics=METRICS, report=REPORT | {"gates": found})
    table = portal.get_by_role("table", name="Gates")
    for row in (
        "perplexity ratio, numbers 1.05 1.095 ✗ missed",
        "latency ratio 1.5 0.9900 ± 8 % ✓ kept",
        "bytes 150,000 100,000 ✓ kept",
    ):
        expect(table.get_by_role("row", name=row)).to_be_visible()
    expect(portal.locator(".failure")).to_contain_text("the perplexity ratio on numbers is 1.095; the gate allows 1.05")
    require_accessible(portal)


def test_a_gate_that_nothing_would_measure_is_said_beside_its_field(
    live_api: httpx.Client, admin_key: str, model: str, dataset: str
) -> None:
    somebody = Browserless(live_api, admin_key)
    name = "gates.max_task_accuracy_drop"
    page = f"/portal/new/full?model={model}&evaluation.datasets={dataset}&{name}=0.02"

    def field(shown: str) -> str:
        [found] = re.findall(rf'<input[^>]*id="field-{name}"[^>]*>', shown)
        assert f'name="{name}"' in found and 'value="0.02"' in found
        return str(found)

    field(somebody.main(page))
    refused = somebody.post(page, "/portal/new/full", {"model": model, "evaluation.datasets": dataset, name: "0.02"})
    assert refused.status_code == 422
    assert 'aria-invalid="true"' in field(refused.text) and f'aria-describedby="field-{name}-error' in field(
        refused.text
    )
    said = refused.text.partition(f'id="field-{name}-error"')[2].partition("</p>")[0]
    assert "add &#34;evaluation&#34;: {&#34;tasks&#34;: [&#34;NAME&#34;]}" in said
    somebody.close()
