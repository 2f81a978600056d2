"""A model that nobody listed, on its page and in a new job, until it is discovered."""

from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from tests.discoveries.conftest import Fleet, alien, fleet
from tests.portal.conftest import require_accessible

__all__ = ["alien", "fleet"]


def test_pages_of_a_model_show_what_it_is_once_it_is_discovered(
    portal: Page, live_api: httpx.Client, fleet: Fleet, alien: Path
) -> None:
    live_api.post("/v1/models", json={"name": "alien", "path": str(alien)}).raise_for_status()
    portal.goto("/portal/models")
    expect(portal.get_by_role("table")).to_contain_text("being examined")
    job = portal.context.new_page()
    job.goto("/portal/new/full")
    job.get_by_label("Model", exact=True).fill("alien")
    expect(job.locator("#model-found")).to_contain_text("AlienForCausalLM is not known yet, and is being examined.")
    portal.goto("/portal/models/alien")
    expect(portal.get_by_text("Its architecture is not known yet, and is being examined.")).to_be_visible()
    expect(portal.get_by_text("of them can become zero")).to_have_count(0)
    require_accessible(portal)
    assert fleet.look()
    expect(portal.get_by_text("of them can become zero")).to_be_visible()
    expect(portal.get_by_role("heading", name="Methods that fit", exact=True)).to_be_visible()
    expect(job.locator("#model-found")).to_contain_text("Methods that fit")
    assert job.get_by_label("Model", exact=True).input_value() == "alien"
