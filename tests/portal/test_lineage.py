"""Lineage on the pages of jobs and models: what made them, and what was made of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page
from sqlalchemy.orm import Session, sessionmaker

from core.settings import Settings
from core.storage import Store
from secateur_wire.provenance import PROVENANCE
from tests.api.ended_job import FILES, succeeded_job
from tests.conftest import bearer
from tests.model_folders import write_llama
from tests.portal.browserless import Browserless
from tests.portal.conftest import require_accessible
from tests.signed_artifact import Signed, upload, write_key


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"signing_key": write_key(tmp_path / "signing-key")})


@pytest.fixture
def visitor_without_script(live_api: httpx.Client, admin_key: str) -> Iterator[Browserless]:
    person = Browserless(live_api, admin_key)
    yield person
    person.close()


@pytest.fixture
def signed(live_api: httpx.Client, sessions: sessionmaker[Session], store: Store, tmp_path: Path) -> Signed:
    return Signed(live_api, sessions, store, tmp_path)


def way(page: str) -> str:
    """The section of the lineage."""
    return page.partition('<ol class="lineage">')[2].partition("</section>")[0]


def in_order(text: str, *parts: str) -> bool:
    places = [text.find(part) for part in parts]
    return places == sorted(places) and places[0] >= 0


def test_the_page_of_a_job_shows_the_way_from_the_model_and_what_was_made_of_the_artifact(
    visitor_without_script: Browserless,
    live_api: httpx.Client,
    model: str,
    sessions: sessionmaker[Session],
    store: Store,
    tmp_path: Path,
) -> None:
    weights = (write_llama(tmp_path / "llama") / "model.safetensors").read_bytes()
    files = {**FILES, "model.safetensors": weights, "config.json": (tmp_path / "llama" / "config.json").read_bytes()}
    signed = {**files, PROVENANCE: b"{}"}
    first = succeeded_job(live_api, sessions, store, tmp_path / "first", model=model, files=signed)
    second = succeeded_job(live_api, sessions, store, tmp_path / "second", model=f"job:{first}", files=files)
    pages = [visitor_without_script.main(f"/portal/jobs/{each}") for each in (first, second)]
    ways = [way(page) for page in pages]
    assert "this job" in ways[0] and "went on to" in ways[0] and f"/portal/jobs/{second}" in ways[0]
    dense = live_api.get(f"/v1/models/{model}").json()
    assert in_order(ways[1], f"/portal/models/{dense['id']}", f"/portal/jobs/{first}", "this job")
    assert "went on to" not in ways[1]
    assert f"secateur verify {first}" in pages[0] and "secateur verify" not in pages[1]


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
    require_accessible(portal)
    portal.goto(f"/portal/jobs/{first}")
    portal.get_by_text("Its artifact was added as a model:").wait_for()
    portal.locator("section", has=portal.locator(".lineage")).get_by_role("link", name="again").click()
    portal.get_by_role("heading", name="again").wait_for()
    assert portal.url.endswith(f"/portal/models/{added['id']}")
    assert "this model" in portal.locator(".lineage > li").last.inner_text()
    require_accessible(portal)
    portal.get_by_role("region", name="Its jobs").locator(f"a[href='/portal/jobs/{second}']").wait_for()


def test_a_model_that_was_replaced_is_no_longer_the_one_a_job_pruned(
    visitor_without_script: Browserless, live_api: httpx.Client, signed: Signed, job_body: dict[str, Any]
) -> None:
    name = job_body["model"]
    job, folder = signed.artifact(job_body, None)
    live_api.delete(f"/v1/models/{name}").raise_for_status()
    model = upload(live_api, folder, name)
    shown = way(visitor_without_script.main(f"/portal/jobs/{job}"))
    assert model["id"] not in shown and in_order(shown, name, "deleted or replaced since", "this job")


def test_what_nobody_signed_and_what_others_signed_is_told_apart(
    visitor_without_script: Browserless,
    live_api: httpx.Client,
    signed: Signed,
    job_body: dict[str, Any],
    settings: Settings,
    tmp_path: Path,
) -> None:
    _, foreign = signed.artifact(job_body, write_key(tmp_path / "foreign"))
    _, forged = signed.artifact(job_body, settings.signing_key, seed=2)
    (forged / "config.json").write_text((forged / "config.json").read_text() + " ")
    unsigned = write_llama(tmp_path / "unsigned", seed=3)
    for name, folder, said in (
        ("foreign", foreign, "none of this installation&#39;s keys signed it"),
        ("forged", forged, "does not hold: config.json has other bytes than were signed"),
        ("unsigned", unsigned, "Nothing proves where this model comes from"),
    ):
        model = upload(live_api, folder, name)
        shown = way(visitor_without_script.main(f"/portal/models/{model['id']}")).replace("'", "&#39;")
        assert said in shown and "/portal/jobs/" not in shown and "leaves" not in shown, name


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
