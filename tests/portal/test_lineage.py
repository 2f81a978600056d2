"""Lineage on the pages of jobs and models: what made them, and what was made of them."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page
from sqlalchemy.orm import Session, sessionmaker

from core.settings import Settings
from core.storage import Store
from tests.conftest import bearer
from tests.portal.browserless import Browserless
from tests.signed_artifact import Signed, upload, write_key


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


def test_the_way_goes_through_an_upload_to_the_jobs_data_and_people(
    portal: Page, live_api: httpx.Client, signed: Signed, job_body: dict[str, Any], settings: Settings
) -> None:
    dense, dataset = (
        live_api.get(path).json()
        for path in (f"/v1/models/{job_body['model']}", f"/v1/datasets/{job_body['calibration']['dataset']}")
    )
    first, folder = signed.artifact(job_body, settings.signing_key)
    portal.goto("/portal/models/add/upload")
    portal.get_by_label("Name", exact=True).fill("again")
    portal.get_by_label("Files of the model's folder").set_input_files(sorted(folder.iterdir()))
    portal.get_by_role("button", name="Upload", exact=True).click()
    portal.get_by_role("heading", name="again").wait_for()
    added = live_api.get("/v1/models/again").json()
    recovery = {"method": "distill", "teacher": dense["name"], "dataset": dataset["name"]}
    trained = {"model": "again", "method": "recover", "recovery": recovery}
    second, _ = signed.artifact(trained, settings.signing_key, seed=2)
    portal.goto(f"/portal/jobs/{second}")
    steps = portal.locator(".lineage > li").all_inner_texts()
    assert [step.split("\n")[0] for step in steps] == ["Model", "Job", "Model", "Job"]
    data = f"calibration: {dataset['name']} {dataset['sha256'][:12]}"
    assert dense["name"] in steps[0] and dense["revision"].removeprefix("sha256:")[:12] in steps[0]
    assert data in steps[1] and "submitted by admin" in steps[1]
    assert "again" in steps[2] and "added by admin" in steps[2] and "signed by this installation" in steps[2]
    assert "this job" in steps[3] and data.replace("calibration", "training") in steps[3]
    assert f"teacher: {dense['name']} {dense['revision'].removeprefix('sha256:')[:12]}" in steps[3]
    portal.goto(f"/portal/jobs/{first}")
    portal.get_by_text("Its artifact was added as a model:").wait_for()
    portal.locator("section", has=portal.locator(".lineage")).get_by_role("link", name="again").click()
    portal.get_by_role("heading", name="again").wait_for()
    assert portal.url.endswith(f"/portal/models/{added['id']}")
    assert "this model" in portal.locator(".lineage > li").last.inner_text()
    portal.get_by_role("region", name="Its jobs").locator(f"a[href='/portal/jobs/{second}']").wait_for()


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
