"""Jobs compared on one page, as charts and as CSV."""

import csv
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from api.portal.views.picture import MeasuredFigure, Model, differences, findings
from core.database import transaction
from core.service.jobs.comparison import ComparedField
from core.service.jobs.tables import JobReportRow, JobRow
from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.portal.browserless import Browserless
from tests.portal.conftest import require_accessible

_SCRIPT = "<script>document.title = 'taken'</script>"


def _layers(share: float) -> list[dict[str, Any]]:
    shape = {"in_features": 8, "out_features": 8}
    return [
        {"name": f"model.layers.{layer}.q", "layer": layer, **shape, "sparsity": share, "reconstruction_error": 0.1}
        for layer in range(2)
    ]


@pytest.fixture
def jobs(
    live_api: httpx.Client,
    sessions: sessionmaker[Session],
    store: Store,
    tmp_path: Path,
    job_body: dict[str, Any],
) -> list[str]:
    """Two that ended, one of which is better in nothing, and one that waits."""
    made = []
    for number, (perplexity, nonzero) in enumerate(((27.4, 60), (30.0, 70))):
        job = succeeded_job(live_api, sessions, store, tmp_path / f"artifact-{number}", model="tiny")
        metrics = {
            "perplexity": {"numbers": {"dense": 25.0, "pruned": perplexity, "ratio": 1.1, "sequence_length": 32}},
            "parameters": {"dense": 100, "nonzero": nonzero},
        }
        with transaction(sessions) as session:
            session.execute(update(JobRow).where(JobRow.id == job).values(metrics=metrics))
            report = {"layers": _layers(0.4 + 0.1 * number)}
            session.execute(update(JobReportRow).where(JobReportRow.job_id == job).values(report=report))
        made.append(job)
    waiting = live_api.post("/v1/jobs", json=job_body | {"metadata": {"note": f"={_SCRIPT}"}})
    return [*made, waiting.raise_for_status().json()["id"]]


def test_jobs_are_compared_in_words_charts_and_tables(portal: Page, jobs: list[str]) -> None:
    portal.goto("/portal/compare?" + "&".join(f"job={each}" for each in jobs))
    expect(portal.get_by_role("heading", name="Compare 3 jobs")).to_be_visible()
    picture = portal.get_by_role("group", name="Size, speed and quality of the dense model and of what came out")
    expect(picture.get_by_role("figure").last.get_by_role("listitem")).to_contain_text(["25.0", "27.4", "30.0", "not"])
    expect(picture.get_by_role("link")).to_have_count(3 * 3)
    expect(portal.locator(".verdict")).to_contain_text("Speed: not measured. Best quality: magnitude 50%")
    expect(portal.get_by_text("The jobs differ in method (magnitude; wanda)")).to_be_visible()
    differing = portal.get_by_role("region", name="Differences")
    expect(differing.get_by_role("rowgroup").nth(1)).to_contain_text("What came out")
    expect(differing.get_by_role("row", name="perplexity.numbers.pruned")).to_contain_text("27.40")
    expect(differing.get_by_role("row", name="metadata.note")).to_contain_text(_SCRIPT)
    assert differing.get_by_role("row", name="output.format").count() == 0
    portal.get_by_role("link", name="Show all").click()
    expect(portal.get_by_role("region", name="All fields").get_by_role("row", name="output.format")).to_contain_text(
        "same"
    )
    first, second = f"magnitude 50% …{jobs[0][-5:]}", f"magnitude 50% …{jobs[1][-5:]}"
    expect(portal.get_by_text(f"{second} is beaten by {first}.")).to_be_visible()
    expect(portal.get_by_text("Not in the chart, because these figures are missing: wanda 50%.")).to_be_visible()
    portal.get_by_text("Data", exact=True).click()
    expect(portal.get_by_role("row", name="tiny, dense")).to_contain_text("25.00")
    plot = portal.get_by_role("group", name="perplexity on numbers (lower is better), against parameters")
    expect(plot.get_by_role("link")).to_have_count(2)
    expect(plot.get_by_role("img", name="tiny, dense: perplexity on numbers 25.00")).to_be_visible()
    better = plot.get_by_role("link", name=f"{first}: perplexity on numbers 27.40, 60 parameters, on the Pareto front")
    x, y = (float(better.locator("circle").last.get_attribute(name) or "") for name in ("cx", "cy"))
    assert f"{x:.1f},{y:.1f}" in (plot.locator("polyline").get_attribute("points") or "")
    shares = portal.locator("img.chart")
    assert shares.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100, "the errors are the same"
    expect(portal.get_by_text("error is the same in every layer of the jobs that have it")).to_be_visible()
    expect(portal.get_by_text("The relative reconstruction error is not known for wanda 50%.")).to_be_visible()
    assert portal.title() == "Compare · Secateur"
    require_accessible(portal)
    better.focus()
    portal.keyboard.press("Enter")
    portal.wait_for_url(f"**/portal/jobs/{jobs[0]}")
    portal.go_back()
    portal.get_by_label("Cost").select_option("latency")
    portal.locator("form", has=portal.get_by_label("Cost")).get_by_role("button").click()
    expect(portal.get_by_text("None of these jobs has measured both perplexity on numbers and latency")).to_be_visible()
    portal.get_by_role("link", name=f"Take {second} away").click()
    expect(portal.get_by_role("heading", name="Compare 2 jobs")).to_be_visible()
    portal.get_by_label("Id of another job").fill(jobs[1])
    portal.get_by_role("button", name="Add").click()
    expect(portal.get_by_role("heading", name="Compare 3 jobs")).to_be_visible()


def test_fewer_than_two_jobs_are_a_question(portal: Page, jobs: list[str]) -> None:
    portal.goto("/portal/compare")
    require_accessible(portal)
    portal.get_by_label("Id of a job").fill(jobs[2])
    portal.get_by_label("Id of another job").fill(jobs[2])
    portal.get_by_role("button", name="Compare").click()
    expect(portal.get_by_text("Choose at least one more.")).to_be_visible()
    portal.get_by_label("Id of another job").fill(jobs[0])
    portal.get_by_role("button", name="Compare").click()
    expect(portal.get_by_role("heading", name="Compare 2 jobs")).to_be_visible()


def test_the_comparison_is_a_csv_that_runs_nothing_and_stays_in_its_team(
    live_api: httpx.Client, jobs: list[str], viewer_key: str, other_team_key: str
) -> None:
    query = "?" + "&".join(f"job={each}" for each in jobs)
    viewer, stranger = Browserless(live_api, viewer_key), Browserless(live_api, other_team_key)
    answer = viewer.http.get(f"/portal/compare.csv{query}")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(answer.text))}
    assert rows["field"] == ["kind", "differs", *jobs]
    assert rows["perplexity.numbers.pruned"] == ["figure", "yes", "27.4", "30.0", ""]
    assert rows["metadata.note"] == ["request", "yes", "", "", f"'={_SCRIPT}"]
    answer = viewer.http.get(f"/portal/compare/trade-off.csv{query}")
    header, *points = csv.reader(io.StringIO(answer.text))
    assert header[2] == "perplexity:numbers" and header[4] == "parameters"
    assert [(row[1], row[2], row[4]) for row in points] == [
        (jobs[0], "27.4", "60.0"), (jobs[1], "30.0", "70.0"), ("", "25.0", "100.0"),
    ]  # fmt: skip
    assert viewer.http.get(f"/portal/compare/trade-off.png{query}").content.startswith(b"\x89PNG")
    addresses = [f"/portal/compare{kind}{query}" for kind in ("", ".csv", "/trade-off.png", "/trade-off.csv")]
    addresses += [f"/portal/compare/layers.svg{query}&figure=error"]
    for somebody, status in ((viewer, 200), (stranger, 404)):
        assert [address for address in addresses if somebody.http.get(address).status_code != status] == []
        somebody.close()


def test_results_that_noise_cannot_tell_apart_are_not_ranked() -> None:
    def model(label: str, size: float, ms: float, perplexity: float, *, is_dense: bool = False) -> Model:
        noise = 0.0 if is_dense else 0.05
        return Model(
            label, is_dense, MeasuredFigure(size), MeasuredFigure(ms, noise * ms), MeasuredFigure(perplexity, noise)
        )

    dense = model("oak, dense", 2048.0, 10.0, 20.0, is_dense=True)
    a, b, c = model("a", 2048.0, 9.9, 27.0), model("b", 1024.0, 9.7, 27.04), model("c", 1024.0, 6.0, 40.0)
    assert findings([dense, a, b], "perplexity:wiki") == [
        "Smallest: b, 1.0 kB.",
        "Speed: no difference seen between the results (9.70 ms a forward).",
        "Quality: no difference seen between the results (perplexity on wiki 27.0).",
    ]
    assert findings([dense, a, b, c], "perplexity:wiki") == [
        "Smallest: b, 1.0 kB; no difference seen from c.",
        "Fastest: c, 6.00 ms a forward.",
        "Best quality: a, perplexity on wiki 27.0; no difference seen from b.",
    ]
    (alone, *_) = findings([dense, a], "perplexity:wiki")
    assert alone == "Size: measured for a alone, 2.0 kB."


def test_what_differs_is_said_in_words_without_what_follows_from_it() -> None:
    def field(name: str, *values: Any) -> ComparedField:
        return ComparedField(name=name, kind="request", values=list(values), differs=len(set(map(str, values))) > 1)

    fields = [
        field("method", "wanda", "magnitude"), field("parameters.scope", None, "tensor"), field("sparsity", 0.5, 0.6),
        field("calibration.dataset", "wiki", None), field("calibration.samples", 8, None), field("seed", 1, 1),
    ]  # fmt: skip
    assert differences(fields) == (
        "The jobs differ in method (wanda; magnitude), sparsity (50 %; 60 %) and calibration dataset (wiki; none)."
    )
    assert differences(fields[-1:]) == "The requests are the same."
