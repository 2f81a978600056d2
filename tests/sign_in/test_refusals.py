"""Answers of a provider that a sign-in must not accept, each with its own reason on the page."""

import base64
import hmac
import json
import re
import time
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey
from pydantic import ValidationError

from core.service.teams.openid.roles import roles_of
from core.service.teams.openid.tokens import KEYS_SECONDS, REREAD_SECONDS, SigningKeys
from core.settings import Settings
from secateur_wire.errors import Unauthenticated
from tests.sign_in.conftest import CALLBACK, Begun, PlayedSignIn, StartPortal, refusal
from tests.sign_in.stand_in import CLIENT, StandIn, new_key

OTHER_KEY = new_key("other")
SAME_ID = new_key("first")


def answer(played: PlayedSignIn, begun: Begun, **changes: Any) -> httpx.Response:
    """Come back with an ID token whose claims are changed."""
    claims = played.provider.claims(**{"nonce": begun.asked["nonce"], **changes})
    played.provider.id_token = played.provider.sign(claims)
    return begun.come_back()


def test_a_sign_in_that_is_in_order_leads_on_with_code_verifier_and_new_session(played: PlayedSignIn) -> None:
    with played.begun() as begun:
        begun.browser.cookies.set("secateur_session", "planted", domain="127.0.0.1", path="/portal")
        arrived = answer(played, begun)
        assert arrived.status_code == 303 and arrived.headers["location"] == "/portal/models"
        cookies = arrived.headers.get_list("set-cookie")
        session = next(each for each in cookies if each.startswith("secateur_session="))
        assert "planted" not in session and "HttpOnly" in session and "SameSite=lax" in session
        assert begun.browser.get("/portal/models").status_code == 200
    asked, [sent] = begun.asked, played.provider.token_requests
    assert asked["code_challenge_method"] == "S256" and asked["response_type"] == "code" and "openid" in asked["scope"]
    assert sent["code"] == "code" and len(sent["code_verifier"]) >= 43 and sent["client_id"] == CLIENT
    assert sent["redirect_uri"] == asked["redirect_uri"] == f"{played.portal.url}{CALLBACK}"


def test_a_session_from_before_the_sign_in_does_not_go_on(played: PlayedSignIn) -> None:
    with played.begun() as begun:
        assert answer(played, begun).status_code == 303
        before = begun.browser.cookies["secateur_session"]
        location = begun.browser.get("/portal/sign-in/oidc").headers["location"]
        begun.asked.update(httpx.QueryParams(httpx.URL(location).query.decode()))
        assert answer(played, begun).status_code == 303
        assert begun.browser.cookies["secateur_session"] != before
    with played.portal.visitor() as other:
        other.cookies.set("secateur_session", before, path="/portal")
        assert other.get("/portal/models").status_code == 303


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://elsewhere.example"}, "issued by another provider"),
        ({"aud": "another"}, "its audience is not our client"),
        ({"aud": [CLIENT, "another"], "azp": "another"}, "its authorized party is not our client"),
        ({"exp": int(time.time()) - 90}, "the token has expired"),
        ({"exp": None}, "lacks the claim exp"),
        ({"iat": int(time.time()) + 3600}, "issued in the future"),
        ({"nonce": "another"}, "its nonce differs"),
        ({"nonce": None}, "lacks the claim nonce"),
        ({"sub": None}, "lacks the claim sub"),
        ({"at_hash": "another"}, "does not belong to the access token"),
        ({"groups": ["strangers"]}, "belongs to no team here: ask your operator"),
        ({"groups": ["planned"]}, "belongs to no team here: ask your operator"),
        ({"sub": "a" * 300}, "cannot be stored"),
    ],
)
def test_claims_that_are_wrong_are_named(played: PlayedSignIn, changes: dict[str, Any], reason: str) -> None:
    with played.begun() as begun:
        page = answer(played, begun, **changes)
        assert reason in refusal(page)
        assert "secateur_session" not in begun.browser.cookies


def test_signatures_that_prove_nothing_are_refused(played: PlayedSignIn) -> None:
    provider = played.provider
    with played.begun() as begun:
        claims = provider.claims(nonce=begun.asked["nonce"])
    unsigned = f"{_encoded({'alg': 'none'})}.{_encoded(claims)}."
    body, _, signature = provider.sign(claims).rpartition(".")
    published = provider.keys[0].as_pem(private=False)
    confused = f"{_encoded({'alg': 'HS256', 'kid': provider.keys[0].kid})}.{_encoded(claims)}"
    forged = {
        "'none', which is not accepted": unsigned,
        "'HS256', which is not accepted": f"{confused}.{_base64(hmac.digest(published, confused.encode(), 'sha256'))}",
        "a key that the provider does not publish": provider.sign(claims, OTHER_KEY),
        "the signature of the token is wrong": provider.sign(claims, SAME_ID),
        "no signed token (JWT)": "not a token",
        "no ID token": None,
    }
    for reason, token in forged.items():
        provider.id_token = token  # type: ignore[assignment]
        with played.begun() as begun:
            assert reason in refusal(begun.come_back()), reason
    provider.id_token = f"{body}.{signature[:-4]}AAAA"
    with played.begun() as begun:
        assert "the signature of the token is wrong" in refusal(begun.come_back())


def test_answers_of_another_sign_in_or_provider_are_refused(played: PlayedSignIn) -> None:
    played.provider.id_token = "never asked for"
    with played.begun() as begun:
        assert "comes from another provider" in refusal(begun.come_back(iss="https://elsewhere.example"))
    with played.begun() as begun:
        page = begun.browser.get(CALLBACK, params={"code": "code", "state": "a" * 40})
        assert "begun in another browser" in refusal(page)
        assert "begun in another browser" in refusal(begun.browser.get(CALLBACK, params={"code": "code"}))
    with played.begun() as begun, played.portal.visitor() as other:
        assert "begun in another browser" in refusal(other.get(CALLBACK, params={"code": "c", **begun.asked}))
        name = f"secateur_pending_{begun.asked['state'][:16]}"
        changed = f"{begun.asked['state'][:16]}{'a' * 27}"
        page = begun.browser.get(CALLBACK, params={"code": "code", "state": changed})
        assert "belongs to another sign-in" in refusal(page)
        other.cookies.set(name, "forged", path="/portal/sign-in/oidc")
        assert "was not begun here" in refusal(other.get(CALLBACK, params={"code": "c", **begun.asked}))
    assert played.provider.token_requests == [], "a code was redeemed"


def test_claims_that_the_token_lacks_are_those_of_the_user_information_of_the_same_account(
    played: PlayedSignIn,
) -> None:
    played.provider.user_information = {"sub": "somebody else", "groups": ["research"]}
    with played.begun() as begun:
        assert "about another account" in refusal(answer(played, begun, groups=None))
    played.provider.user_information = {"sub": "ada", "groups": ["visitors"], "name": "Another name"}
    with played.begun() as begun:
        assert answer(played, begun, groups=None).status_code == 303
        assert "Ada (viewer)" in begun.browser.get("/portal/models").text


def test_an_address_that_nobody_verified_gives_no_team(start_portal: StartPortal, stand_in: StandIn) -> None:
    by_email = {"oidc_claim": "email", "oidc_roles": {"ada@example.com": "gardeners:admin"}}
    portal = start_portal(oidc_issuer=stand_in.issuer, oidc_client_id=CLIENT, **by_email)
    played = PlayedSignIn(portal, stand_in)
    with played.begun() as begun:
        assert "did not verify the e-mail address" in refusal(answer(played, begun))
    with played.begun() as begun:
        assert answer(played, begun, email_verified=True).status_code == 303


def test_a_provider_that_is_away_or_another_than_the_settings_say_is_named(
    start_portal: StartPortal, stand_in: StandIn
) -> None:
    away = start_portal(oidc_issuer="http://127.0.0.1:9", oidc_client_id=CLIENT)
    with away.visitor() as browser:
        page = browser.get("/portal/sign-in/oidc")
        assert "cannot be reached" in refusal(page) and "API key" in page.text
    stand_in.description = {"issuer": "https://elsewhere.example"}
    other = start_portal(oidc_issuer=stand_in.issuer, oidc_client_id=CLIENT)
    with other.visitor() as browser:
        assert "calls itself 'https://elsewhere.example'" in refusal(browser.get("/portal/sign-in/oidc"))


def test_keys_are_read_anew_for_an_unknown_one_once_a_minute_and_every_hour() -> None:
    clock, published = [0.0], [[SAME_ID], [SAME_ID, OTHER_KEY], [OTHER_KEY]]
    reads: list[list[RSAKey]] = []

    def fetch() -> dict[str, Any]:
        reads.append(published[min(len(reads), 2)])
        return {"keys": [key.as_dict(private=False) for key in reads[-1]]}

    keys = SigningKeys(fetch, clock=lambda: clock[0])
    keys.find("first", "RS256")
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            keys.find("other", "RS256")
    assert len(reads) == 1
    clock[0] = REREAD_SECONDS + 1
    keys.find("other", "RS256")
    keys.find("first", "RS256")
    assert len(reads) == 2
    clock[0] += KEYS_SECONDS + 1
    with pytest.raises(Unauthenticated):
        keys.find("first", "RS256")
    assert len(reads) == 3


def _encoded(part: dict[str, Any]) -> str:
    return _base64(json.dumps(part).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


COMPLETE = {
    "SECATEUR_OIDC_ISSUER": "https://sso.example.com",
    "SECATEUR_OIDC_CLIENT_ID": "secateur",
    "SECATEUR_OIDC_ROLES": '{"research": "default:admin", "guests": "a team: with colon:viewer"}',
}


def read(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> Settings:
    for name, value in {**COMPLETE, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return Settings()


def test_roles_are_read_from_the_environment_and_the_highest_of_a_team_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = '{"a": "default:viewer", "b": "default:admin", "c": "default:member", "d": "a team: with colon:viewer"}'
    settings = read(monkeypatch, SECATEUR_OIDC_ROLES=roles)
    assert roles_of({"groups": ["a", "b", "c", "d", "x"]}, settings) == {
        "default": "admin",
        "a team: with colon": "viewer",
    }
    assert roles_of({"groups": "a"}, settings) == {"default": "viewer"}
    assert roles_of({}, settings) == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SECATEUR_OIDC_ISSUER": "http://sso.example.com"}, "must begin with https://"),
        ({"SECATEUR_OIDC_CLIENT_ID": None}, "SECATEUR_OIDC_CLIENT_ID is needed"),
        ({"SECATEUR_OIDC_ROLES": None}, "nobody belongs to a team"),
        ({"SECATEUR_OIDC_ROLES": '{"research": "default:owner"}'}, "with the role viewer, member, admin"),
        ({"SECATEUR_OIDC_SCOPES": "profile"}, "must have openid"),
    ],
)
def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], reason: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(reason)):
        read(monkeypatch, **changes)
