"""Jobs compared on one page, as charts and as CSV; and what another team sees of a model's lineage."""

import csv
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.tables import JobReportRow, JobRow
from core.settings import Settings
from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.conftest import bearer
from tests.portal.browserless import Browserless
from tests.signed_artifact import Signed, upload, write_key

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


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"signing_key": write_key(tmp_path / "signing-key")})


@pytest.fixture
def signed(live_api: httpx.Client, sessions: sessionmaker[Session], store: Store, tmp_path: Path) -> Signed:
    return Signed(live_api, sessions, store, tmp_path)


def way(page: str) -> str:
    """The section of the lineage."""
    return page.partition('<ol class="lineage">')[2].partition("</section>")[0]


def in_order(text: str, *parts: str) -> bool:
    places = [text.find(part) for part in parts]
    return places == sorted(places) and places[0] >= 0


def test_another_team_sees_the_statement_that_it_brought_and_nothing_of_the_job(
    live_api: httpx.Client, signed: Signed, job_body: dict[str, Any], settings: Settings, other_team_key: str
) -> None:
    job, folder = signed.artifact(job_body, settings.signing_key)
    live_api.headers.update(bearer(other_team_key))
    theirs = upload(live_api, folder, "theirs")
    person = Browserless(live_api, other_team_key)
    shown = way(person.main(f"/portal/models/{theirs['id']}"))
    person.close()
    assert in_order(shown, job_body["model"], "not a job of your team", "this model")
    assert job not in shown and "submitted by" not in shown and "/portal/jobs/" not in shown
