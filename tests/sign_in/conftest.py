"""A portal whose people sign in at a provider, and the provider."""

import html
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from pydantic import SecretStr

from bench.parts import free_port
from core.settings import Settings
from tests.serving import lent_app, served
from tests.sign_in.node_provider import provider
from tests.sign_in.stand_in import CLIENT, StandIn

CALLBACK = "/portal/sign-in/oidc/callback"
ROLES = {
    "research": "gardeners:admin",
    "visitors": "gardeners:viewer",
    "forest": "foresters:member",
    "planned": "no-such-team:member",
}


@dataclass(frozen=True)
class Portal:
    """A portal at an address, with the settings that it was started with."""

    url: str
    settings: Settings

    def visitor(self) -> httpx.Client:
        """Return a browser without scripts, that follows no redirects by itself."""
        return httpx.Client(base_url=self.url)


StartPortal = Callable[..., Portal]


@pytest.fixture
def start_portal(settings: Settings, team: str, other_team: str) -> Iterator[StartPortal]:
    """Starts portals, with changes to their settings."""
    with ExitStack() as started:

        def start(port: int = 0, **changes: Any) -> Portal:
            own = settings.model_copy(update={"oidc_roles": ROLES, **changes})
            app = started.enter_context(lent_app(own))
            return Portal(started.enter_context(served(app, port)), own)

        yield start


@pytest.fixture(scope="session")
def issuer() -> Iterator[str]:
    """The issuer of a real provider."""
    with provider() as running:
        yield running


@dataclass(frozen=True)
class RealSignIn:
    """A portal and the real provider, which it is a client of."""

    portal: Portal
    issuer: str

    def set_claims(self, account: str, /, **claims: Any) -> None:
        """Set what the provider says of the account with this name."""
        httpx.put(f"{self.issuer}/accounts/{account}", json=claims).raise_for_status()

    def sign_in(self, browser: httpx.Client, name: str, then: str = "/portal/jobs", **query: Any) -> httpx.Response:
        """Sign in with the account of this name, at the provider's own page, and return the last answer."""
        begun = browser.get("/portal/sign-in/oidc", params={"then": then, **query})
        asked = follow(browser, begun)
        assert "interaction" in str(asked.url), asked.text
        fields = {"prompt": "login", "login": name, "password": "any"}
        return follow(browser, browser.post(form_address(asked), data=fields))


@pytest.fixture
def real(start_portal: StartPortal, issuer: str) -> RealSignIn:
    """A portal that registered itself at the real provider."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    client = {
        "redirect_uris": [f"{url}{CALLBACK}"],
        "post_logout_redirect_uris": [f"{url}/portal/sign-in"],
        "backchannel_logout_uri": f"{url}/portal/oidc/back-channel-logout",
        "backchannel_logout_session_required": True,
    }
    registered = httpx.post(f"{issuer}/reg", json=client).raise_for_status().json()
    portal = start_portal(
        port,
        oidc_issuer=issuer,
        oidc_client_id=registered["client_id"],
        oidc_client_secret=SecretStr(registered["client_secret"]),
        oidc_scopes="openid profile email groups",
        workload_issuers=["https://token.actions.githubusercontent.com"],
    )
    return RealSignIn(portal, issuer)


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """A provider that does what a test tells it to."""
    played = StandIn()
    with served(played.app()) as url:
        played.issuer = url
        yield played


@dataclass
class PlayedSignIn:
    """A portal whose provider is a stand-in."""

    portal: Portal
    provider: StandIn

    @contextmanager
    def begun(self) -> "Iterator[Begun]":
        """A browser that has been led to the provider."""
        with self.portal.visitor() as browser:
            location = browser.get("/portal/sign-in/oidc?then=/portal/models").headers["location"]
            yield Begun(browser, {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()})


@dataclass
class Begun:
    """A sign-in on its way: the browser, and the parameters that the provider got."""

    browser: httpx.Client
    asked: dict[str, str]

    def come_back(self, **parameters: str) -> httpx.Response:
        """Come back from the provider with a code and the state."""
        return self.browser.get(CALLBACK, params={"code": "code", "state": self.asked["state"], **parameters})


@pytest.fixture
def played(start_portal: StartPortal, stand_in: StandIn) -> PlayedSignIn:
    """A portal whose provider is a stand-in."""
    return PlayedSignIn(start_portal(oidc_issuer=stand_in.issuer, oidc_client_id=CLIENT), stand_in)


def follow(browser: httpx.Client, answer: httpx.Response) -> httpx.Response:
    """Follow redirects to the end, between the portal and the provider."""
    while answer.next_request is not None:
        answer = browser.send(answer.next_request)
    return answer


def form_address(page: httpx.Response) -> str:
    """Return the address that the first form of a page is sent to."""
    action = re.search(r'action="([^"]+)"', page.text)
    assert action is not None, page.text
    return str(page.url.join(html.unescape(action[1])))


def refusal(page: httpx.Response) -> str:
    """Return why a sign-in was refused, as the page says it."""
    said = re.search(r"<strong>You are not signed in:</strong>(.*?)</p>", page.text, re.DOTALL)
    assert page.status_code == 401 and said is not None, page.text
    return html.unescape(said[1]).strip()
