"""Models in the portal: uploaded and cut off, registered, looked at, deleted."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.registry.tables import ModelRow
from core.settings import Settings
from tests.model_folders import write_llama
from tests.portal.browserless import Browserless

PART = 4096


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Parts so small that a tiny model has several."""
    return settings.model_copy(update={"upload_part_bytes": PART, "form_upload_bytes": 100_000})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What somebody has on their disk, with files beside that are no part of a model."""
    folder = write_llama(tmp_path / "elm")
    (folder / "README.md").write_text("An elm.")
    return folder


def fill(page: Page, folder: Path, name: str = "elm") -> None:
    page.goto("/portal/models/add/upload")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Files of the model's folder").set_input_files(sorted(folder.iterdir()))


def test_an_upload_that_is_cut_off_goes_on_after_a_reload(portal: Page, live_api: httpx.Client, folder: Path) -> None:
    portal.goto("/portal/models")
    expect(portal.get_by_text("No models yet")).to_be_visible()
    sent: list[int] = []

    def cut(route: Route) -> None:
        """The third part of the weights finds no way."""
        if "safetensors" in route.request.url:
            sent.append(int(route.request.url.rpartition("=")[2]))
        if len(sent) > 2:
            route.abort("connectionreset")
        else:
            route.continue_()

    portal.context.route("**/files/**", cut)
    fill(portal, folder)
    portal.get_by_role("button", name="Upload", exact=True).click()
    expect(portal.get_by_text("The service cannot be reached: trying again.")).to_be_visible()
    portal.get_by_role("button", name="Pause").click()
    expect(portal.get_by_text("Paused.")).to_be_visible()
    portal.reload()
    expect(portal.get_by_role("heading", name="Uploads that are not finished")).to_be_visible()
    portal.context.unroute("**/files/**")
    sent.clear()
    portal.context.on("request", lambda asked: sent.append(1) if "safetensors" in asked.url else None)
    parts = -(-(folder / "model.safetensors").stat().st_size // PART)
    fill(portal, folder)
    portal.get_by_role("button", name="Upload", exact=True).click()
    expect(portal.get_by_role("heading", name="elm")).to_be_visible()
    assert len(sent) == parts - 2 > 0
    assert live_api.get("/v1/models/elm").json()["architecture"] == "LlamaForCausalLM"


def test_what_the_service_refuses_is_told_at_the_field_and_nothing_typed_is_lost(portal: Page, folder: Path) -> None:
    (folder / "config.json").write_text('{"auto_map": {}, "architectures": ["LlamaForCausalLM"]}')
    fill(portal, folder)
    portal.get_by_role("button", name="Upload", exact=True).click()
    files = portal.get_by_label("Files of the model's folder")
    expect(portal.get_by_role("alert")).to_contain_text("auto_map")
    expect(files).to_have_attribute("aria-invalid", "true")
    expect(portal.get_by_label("Name", exact=True)).to_have_value("elm")
    portal.goto("/portal/models")
    expect(portal.get_by_role("heading", name="Uploads that are not finished")).to_have_count(0)
    refused = portal.get_by_role("region", name="Uploads that were refused").get_by_role("row", name="elm")
    expect(refused).to_contain_text("auto_map")
    expect(refused).to_contain_text("upload the model once more")
    refused.get_by_text("Forget…").click()
    portal.get_by_role("button", name="Forget elm").click()
    expect(portal.get_by_role("heading", name="Uploads that were refused")).to_have_count(0)


def test_without_javascript_one_form_does_it_and_leaves_nothing_half_done(
    live_api: httpx.Client, admin_key: str, folder: Path
) -> None:
    browser, address = Browserless(live_api, admin_key), "/portal/models/add/upload"

    def upload(name: str = "elm", **change: bytes) -> httpx.Response:
        contents = {file.name: file.read_bytes() for file in folder.iterdir()} | change
        return browser.post(address, address, {"name": name}, [("files", each) for each in contents.items()])

    refused = upload(**{"config.json": b'{"auto_map": {}}'})
    assert refused.status_code == 422 and "auto_map" in refused.text and 'value="elm"' in refused.text
    refused = upload(**{"model.safetensors": b"x" * 200_000})
    assert refused.status_code == 413 and "larger than 100000 bytes" in refused.text
    assert live_api.get("/v1/uploads").json()["data"] == []
    refused = browser.http.post(address, data={"name": "elm"}, files={"files": ("config.json", b"{}")})
    assert refused.status_code == 403 and "load the page again" in refused.text
    made = upload()
    assert made.status_code == 303
    assert "<h1>elm</h1>" in browser.http.get(made.headers["location"]).text
    browser.close()


def test_a_model_that_a_job_uses_is_not_deleted_and_the_button_says_why(
    portal: Page, live_api: httpx.Client, job_body: dict[str, Any], model: str
) -> None:
    job = live_api.post("/v1/jobs", json=job_body).json()["id"]
    portal.goto(f"/portal/models/{model}")
    its_job = portal.get_by_role("region", name="Its jobs").get_by_role("row").filter(has_text="queued")
    expect(its_job.get_by_role("link")).to_have_attribute("href", f"/portal/jobs/{job}")
    portal.get_by_text("Delete…").click()
    portal.get_by_role("button", name="Delete tiny").click()
    expect(portal.get_by_role("alert")).to_contain_text(f"is needed by job '{job}', which is not over")
    live_api.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    portal.get_by_role("button", name="Delete tiny").click()
    expect(portal.get_by_text("No models yet")).to_be_visible()


def test_admins_register_folders_of_the_server(
    portal: Page, settings: Settings, sessions: sessionmaker[Session]
) -> None:
    folder = write_llama(settings.models_root / "oak").resolve()
    portal.goto("/portal/models")
    portal.get_by_role("link", name="Register a folder of the server").click()
    portal.get_by_label("Name", exact=True).fill("oak")
    portal.get_by_label("Folder").fill("/etc")
    portal.get_by_role("button", name="Register").click()
    expect(portal.locator("#field-path-error")).to_contain_text("is outside the folders")
    portal.get_by_label("Folder").fill(str(folder))
    portal.get_by_label("Where it comes from").fill("<script>alert(1)</script>")
    portal.get_by_role("button", name="Register").click()
    expect(portal.get_by_role("heading", name="oak")).to_be_visible()
    expect(portal.get_by_text("<script>alert(1)</script>")).to_be_visible()
    with transaction(sessions) as session:
        assert session.query(ModelRow).one().path == str(folder)
