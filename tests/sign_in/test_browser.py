"""A real browser at a real provider: the content policy lets it sign in and out, and its pages are accessible."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from bench.browser import chromium
from tests.portal.conftest import require_accessible
from tests.sign_in.conftest import RealSignIn


@pytest.fixture
def page(real: RealSignIn) -> Iterator[Page]:
    """A page of the portal, that fails a test where the content policy refuses anything of it."""
    with chromium() as browser:
        context = browser.new_context(base_url=real.portal.url)
        context.set_default_timeout(60_000)
        refused: list[str] = []
        context.on("console", lambda said: refused.append(said.text) if "Content Security" in said.text else None)
        yield context.new_page()
        context.close()
    assert not refused, refused


def test_a_person_signs_in_and_out_through_the_provider_s_pages(real: RealSignIn, page: Page) -> None:
    real.set_claims("ada", name="Ada", groups=["research", "forest"])
    page.goto("/portal/team")
    require_accessible(page)
    page.get_by_role("link", name="Sign in with your account").click()
    page.get_by_placeholder("Enter any login").fill("ada")
    page.get_by_placeholder("and password").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    expect(page).to_have_url(f"{real.portal.url}/portal/team")
    page.locator("summary").first.click()
    page.get_by_role("button", name="Switch to gardeners").click()
    expect(page.locator("header")).to_contain_text("gardeners · Ada (admin)")
    page.goto("/portal/team")
    page.get_by_role("link", name="People").click()
    own = page.get_by_role("row", name="Ada (you)")
    expect(own).to_contain_text("admin")
    expect(own).to_contain_text("just now")
    require_accessible(page)
    page.goto("/portal/team/pipelines")
    page.get_by_label("Name", exact=True).fill("nightly <b>pruning</b>")
    page.get_by_label("Claims").fill("repository_id=74\nrepository_owner_id=65\nref=refs/heads/main")
    page.get_by_role("button", name="Make the rule").click()
    rule = page.get_by_role("row", name="nightly <b>pruning</b>")
    expect(rule).to_contain_text("ref=refs/heads/main")
    require_accessible(page)
    rule.get_by_text("Delete…").click()
    rule.get_by_role("button", name="Delete nightly").click()
    expect(page.get_by_text("No rules yet")).to_be_visible()
    page.locator("summary").first.click()
    page.get_by_role("button", name="Sign out", exact=True).click()
    page.wait_for_url(f"{real.issuer}/session/end?*")
    page.get_by_role("button", name="Yes, sign me out").click()
    page.wait_for_url(f"{real.portal.url}/portal/sign-in*")
    expect(page.get_by_role("heading", name="Sign in to Secateur")).to_be_visible()
