"""Datasets in the portal."""

from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from tests.model_folders import write_text
from tests.portal.conftest import require_accessible


def test_a_text_is_uploaded_looked_at_and_deleted(portal: Page, live_api: httpx.Client, tmp_path: Path) -> None:
    file = write_text(tmp_path / "my words.txt")
    portal.goto("/portal/datasets")
    portal.get_by_role("link", name="Upload a first dataset").click()
    require_accessible(portal)
    portal.get_by_label("Name", exact=True).fill("words")
    portal.get_by_label("Format").select_option("parquet")
    portal.get_by_label("File", exact=True).set_input_files(file)
    portal.get_by_role("button", name="Upload", exact=True).click()
    expect(portal.get_by_role("alert")).to_contain_text("Parquet")
    portal.get_by_label("Format").select_option("")
    portal.get_by_role("button", name="Upload", exact=True).click()
    expect(portal.get_by_role("heading", name="words")).to_be_visible()
    expect(portal.get_by_text("200 documents")).to_be_visible()
    require_accessible(portal)
    assert live_api.get("/v1/datasets/words").json()["source"] == "upload"
    portal.goto("/portal/datasets")
    expect(portal.get_by_role("row", name="words")).to_contain_text("200 documents, 10.0 k characters")
    require_accessible(portal)
    portal.get_by_role("link", name="words").click()
    portal.get_by_text("Delete…").click()
    portal.get_by_role("button", name="Delete words").click()
    expect(portal.get_by_text("No datasets yet")).to_be_visible()
