"""Logout tokens of the back channel: whose sessions they end, and which are refused."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.sign_in.conftest import PlayedSignIn
from tests.sign_in.stand_in import CLIENT, new_key

LOGOUT = "/portal/oidc/back-channel-logout"
EVENT = "http://schemas.openid.net/event/backchannel-logout"
OTHER_KEY = new_key("other")


def logout_claims(played: PlayedSignIn, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "iss": played.provider.issuer,
        "aud": CLIENT,
        "iat": now,
        "exp": now + 120,
        "jti": f"logout-{time.monotonic_ns()}",
        "sub": "ada",
        "events": {EVENT: {}},
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def post(played: PlayedSignIn, token: str) -> httpx.Response:
    return httpx.post(f"{played.portal.url}{LOGOUT}", data={"logout_token": token})


@pytest.fixture
def browsers(played: PlayedSignIn) -> Iterator[dict[str, httpx.Client]]:
    """Two browsers of one person, each with the provider's session after which it is named."""
    signed_in = {}
    for session in ("one", "two"):
        with played.begun() as begun:
            claims = played.provider.claims(nonce=begun.asked["nonce"], sid=session)
            played.provider.id_token = played.provider.sign(claims)
            assert begun.come_back().status_code == 303
            signed_in[session] = httpx.Client(base_url=played.portal.url, cookies=begun.browser.cookies)
    yield signed_in
    for browser in signed_in.values():
        browser.close()


def is_signed_in(browser: httpx.Client) -> bool:
    return browser.get("/portal/team").status_code == 200


def test_a_session_ends_by_its_id_and_all_of_a_person_by_the_subject(
    played: PlayedSignIn, browsers: dict[str, httpx.Client]
) -> None:
    provider = played.provider
    ended = post(played, provider.sign(logout_claims(played, sid="one"), typ="logout+jwt"))
    assert ended.status_code == 200 and ended.headers["cache-control"] == "no-store"
    assert [is_signed_in(browser) for browser in browsers.values()] == [False, True]
    assert post(played, provider.sign(logout_claims(played, sub="somebody"))).status_code == 200
    assert is_signed_in(browsers["two"])
    assert post(played, provider.sign(logout_claims(played))).status_code == 200
    assert not is_signed_in(browsers["two"])


def test_tokens_that_are_none_end_nothing_and_are_told_why(
    played: PlayedSignIn, browsers: dict[str, httpx.Client]
) -> None:
    provider, now = played.provider, int(time.time())
    refused = {
        "another provider": provider.sign(logout_claims(played, iss="https://elsewhere.example")),
        "audience": provider.sign(logout_claims(played, aud="another")),
        "expired": provider.sign(logout_claims(played, exp=now - 90)),
        "in the future": provider.sign(logout_claims(played, iat=now + 3600, exp=now + 3700)),
        "lacks the claim jti": provider.sign(logout_claims(played, jti=None)),
        "lacks the claim events": provider.sign(logout_claims(played, events=None)),
        "tells of no logout": provider.sign(logout_claims(played, events={"other": {}})),
        "has a nonce": provider.sign(logout_claims(played, nonce="n")),
        "neither a subject nor a session": provider.sign(logout_claims(played, sub=None)),
        "its type is 'at+jwt'": provider.sign(logout_claims(played), typ="at+jwt"),
        "does not publish": provider.sign(logout_claims(played), OTHER_KEY),
        "'HS256', which is not accepted": provider.sign_with_secret(logout_claims(played), "x" * 32),
        "no signed token": "",
    }
    for reason, token in refused.items():
        answer = post(played, token)
        assert answer.status_code == 400 and reason in answer.json()["error_description"], reason
    assert all(is_signed_in(browser) for browser in browsers.values())
    once = provider.sign(logout_claims(played, sub="somebody"))
    assert post(played, once).status_code == 200
    assert "used already" in post(played, once).json()["error_description"]
