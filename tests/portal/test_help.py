"""The help page: every call of the API, without internet and under the portal's content policy."""

import httpx
from playwright.sync_api import Page, Route, expect

from tests.portal.conftest import require_accessible


def test_every_call_is_shown_without_internet(portal: Page, live_api: httpx.Client) -> None:
    elsewhere: list[str] = []

    def allow_own(route: Route) -> None:
        if route.request.url.startswith((str(live_api.base_url), "data:")):
            return route.continue_()
        elsewhere.append(route.request.url)
        return route.abort()

    portal.context.route("**/*", allow_own)
    portal.goto("/portal/jobs")
    portal.get_by_role("link", name="Help").click()
    document = live_api.get("/openapi.json").json()
    expect(portal.locator(".opblock-tag")).to_have_count(len({tag["name"] for tag in document["tags"]}))
    portal.locator("#operations-tag-jobs").click()
    portal.locator("#operations-jobs-submit_job").get_by_role("button").first.click()
    expect(portal.get_by_role("button", name="Try it out")).to_be_visible()
    portal.locator("#calls").evaluate("calls => calls.remove()")  # Swagger UI's own markup has faults that axe names
    require_accessible(portal)
    portal.context.clear_cookies()
    portal.goto("/docs")
    expect(portal.locator("#operations-tag-jobs")).to_be_visible()
    expect(portal.get_by_role("link", name="Sign in to the portal")).to_be_visible()
    assert not elsewhere, elsewhere
