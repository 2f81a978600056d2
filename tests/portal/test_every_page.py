"""Every page and form of the portal, by every kind of caller with the ids of one team; each page once in a browser."""

import re
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Page, expect

from api.portal.app import create_portal
from tests.api.test_authorization import Garden, garden, settings
from tests.portal.browserless import Browserless
from tests.portal.conftest import require_accessible

__all__ = ["garden", "settings"]

Caller = Literal["nobody", "viewer", "member", "admin", "admin of another team"]
SIGNED_IN = "nobody", "viewer", "member", "admin"
"""Callers of one team, each of whom may do all that those before may."""
OPEN = {
    *("GET /", "GET /sign-in", "POST /sign-in", "GET /help"),
    *("GET /sign-in/oidc", "GET /sign-in/oidc/callback", "POST /oidc/back-channel-logout"),
}
"""Nobody has signed in yet, or the provider calls."""
OWN = {"POST /sign-out", "POST /session/team"}
OF_MEMBERS = {"GET /{noun}/add/upload", "GET /triggers/new", "GET /triggers/{trigger_id}/edit"}
OF_ADMINS = re.compile(
    r"GET (/team/(people|pipelines|retention|audit)|/workers|/\{noun\}/add/register)"
    r"|POST (/team/.*|/\{noun\}/add/register|/webhooks|/webhooks/\{webhook_id\}(/switch|/rotate|/delete)?)"
)
LAST = ("/delete", "/revoke", "/abort", "/complete")
CHARTS = ("/compare/layers.svg", "/compare/trade-off.{form}", "/sweeps/{sweep_id}/trade-off.{form}")
"""They answer 404 where the jobs have no such figures."""


@dataclass(frozen=True)
class Call:
    """A method and a path of the portal, as its routes have it."""

    method: str
    path: str

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def role(self) -> str:
        """The least that may do it."""
        if self.name in OPEN:
            return "nobody"
        if OF_ADMINS.fullmatch(self.name):
            return "admin"
        is_of_members = self.name in OF_MEMBERS or (self.method != "GET" and self.name not in OWN)
        return "member" if is_of_members else "viewer"

    def address(self, garden: Garden) -> str:
        named = {"noun": "models", "form": "csv", **garden.named(self.path)}
        query = f"?job={garden.job}&job={garden.job}&figure=error" if self.path.startswith("/compare") else ""
        query = f"?model={garden.model}&method=magnitude" if self.name == "POST /new" else query
        return "/portal" + self.path.replace(":path", "").format(**named) + query


def calls() -> list[Call]:
    """What looks before what changes, and what ends something last."""
    included = (each.original_router for each in create_portal().routes if hasattr(each, "original_router"))
    routes = (route for router in included for route in router.routes)
    found = [Call(method, route.path) for route in routes for method in sorted(route.methods - {"HEAD"})]
    assert len(found) > 90
    return sorted(found, key=lambda call: (call.path == "/sign-out", call.path.endswith(LAST), call.method != "GET"))


CALLS = calls()


@pytest.fixture
def keys(viewer_key: str, member_key: str, admin_key: str, other_team_key: str) -> dict[str, str]:
    return dict(
        zip((*SIGNED_IN[1:], "admin of another team"), (viewer_key, member_key, admin_key, other_team_key), strict=True)
    )


def _ask(browser: httpx.Client, csrf: str, call: Call, garden: Garden) -> httpx.Response:
    if call.method == "GET":
        if call.path.endswith("/stream"):
            with browser.stream("GET", call.address(garden)) as begun:
                return begun
        return browser.get(call.address(garden))
    sent: dict[str, Any] = {"data": {"csrf": csrf}, "headers": {"X-CSRF-Token": csrf}}
    if call.name == "POST /uploads":
        sent = {"json": garden.body("start_upload"), "headers": {**sent["headers"], "Accept": "application/json"}}
    elif call.method == "PUT":
        sent["headers"]["Content-Type"] = "application/octet-stream"
        sent = {"content": b"", "params": {"offset": 0}, "headers": sent["headers"]}
    return browser.request(call.method, call.address(garden), **sent)


def _outcome(answer: httpx.Response) -> str:
    if answer.status_code in (403, 404):
        return str(answer.status_code)
    if answer.status_code == 401 or answer.headers.get("location", "").startswith("/portal/sign-in?then="):
        return "sign in"
    return "allowed" if answer.status_code < 500 else answer.text


def _expected(call: Call, caller: Caller) -> set[str]:
    """What may come, one of it."""
    if call.path.startswith(("/sign-in/oidc", "/oidc")):
        return {"404"}  # no provider is set
    if call.path == "/sign-in" and call.method == "POST":
        return {"sign in"}  # without a key
    if caller == "nobody":
        return {"allowed"} if call.role == "nobody" else {"sign in"}
    missing = {"404"} if call.path in CHARTS or call.path.endswith((".svg", "/session/team")) else set()
    if caller == "admin of another team":
        names_something = "{" in call.path.replace("{noun}", "") or call.path.startswith("/compare")
        return {"404"} if names_something else {"allowed"} | missing
    return {"allowed"} | missing if SIGNED_IN.index(caller) >= SIGNED_IN.index(call.role) else {"403"}


@pytest.mark.parametrize("caller", ["nobody", "viewer", "admin of another team", "member", "admin"])
def test_every_page_and_form_is_answered_by_role(
    caller: Caller, live_api: httpx.Client, garden: Garden, keys: dict[str, str]
) -> None:
    with httpx.Client(base_url=live_api.base_url, timeout=60) as browser:
        csrf = "none"
        if caller != "nobody":
            with closing(Browserless(live_api, keys[caller])) as person:
                browser.cookies, csrf = person.http.cookies, person.token("/portal/jobs")
        wrong = {}
        for call in CALLS:
            if (came := _outcome(_ask(browser, csrf, call, garden))) not in (told := _expected(call, caller)):
                wrong[call.name] = (came, told)
    assert not wrong, f"(came, expected) of {caller}: {wrong}"


def _pages(caller: Caller) -> list[Call]:
    """What a browser shows of it."""
    shown = re.compile(r"GET (?!.*(\.|/stream|/log|:path|/oidc|/callback|/hub$)).*")
    return [call for call in CALLS if shown.match(call.name) and "allowed" in _expected(call, caller)]


def test_every_page_is_accessible_narrow_enough_and_without_faults(
    portal: Page, live_api: httpx.Client, garden: Garden
) -> None:
    faults: list[str] = []
    portal.on("console", lambda said: faults.append(f"{portal.url}: {said.text}") if said.type == "error" else None)
    portal.on("pageerror", lambda error: faults.append(f"{portal.url}: {error}"))
    for call in _pages("admin"):
        answer = portal.goto(call.address(garden))
        assert answer is not None and answer.ok, call.name
        assert answer.headers["content-security-policy"].startswith("default-src 'none'"), call.name
        if call.path == "/help":  # Swagger UI's own markup has faults that axe names
            expect(portal.locator(".opblock-tag").first).to_be_visible()
            portal.locator("#calls").evaluate("calls => calls.remove()")
        require_accessible(portal)
    assert not faults
