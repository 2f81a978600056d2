"""Sessions of browsers, and the check that a page of this session sent a form."""

import hmac
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import Response

from api.dependencies import State, with_role
from api.http.bodies import parsed, read_body
from api.http.routing import AuthenticatedRoute
from api.process.proxies import client_address
from api.state import ApiState
from core.database import transaction
from core.service.teams.principal import Principal
from core.service.teams.sessions import form_token, signed_in
from secateur_wire.errors import Forbidden, InvalidRequest, Unauthenticated
from secateur_wire.teams import Role

COOKIE = "secateur_session"
SIGNED_IN_BEFORE = "secateur_signed_in_before"
"""Cookie that outlives the session, so that the browser's user can be told that it is over."""
COOKIE_PATH = "/portal"
CSRF_FIELD = "csrf"
SECRET_FIELDS = ("key", "token", "access_key", "secret_key", "session_token")
"""Fields that are never sent back to the page, nor kept in an address during sign-in."""
CSRF_HEADER = "X-CSRF-Token"
_PERSON, _KEY = "person", "yes"
_MOST_FIELDS = 1000
_SAFE = ("GET", "HEAD")
_OWN_SITE = ("same-origin", "none")
"""Values of Sec-Fetch-Site for a request by a page of this site, or by the person alone (an address, a bookmark)."""
_REMEMBERED_SECONDS = 30 * 86_400


@dataclass(frozen=True)
class Form:
    """Fields of a form as they were sent, stripped; empty ones are left out.

    `lists` has every value of a name, `fields` the last.
    """

    lists: dict[str, list[str]] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, str]:
        return {name: values[-1] for name, values in self.lists.items()}

    def get(self, name: str, default: str = "") -> str:
        """Return the last value of a name."""
        return self.lists.get(name, [default])[-1]

    def replaced(self, fields: Mapping[str, str]) -> "Form":
        """Return the form with these fields replaced."""
        return Form(self.lists | {name: [value] for name, value in fields.items()})

    def with_defaults(self, fields: Mapping[str, str]) -> "Form":
        """Return the form with these values for fields that it does not have."""
        return self.filled_from(Form({name: [value] for name, value in fields.items()}))

    def filled_from(self, other: "Form") -> "Form":
        """Return the form with the other form's fields added where it does not have them."""
        return Form(other.lists | self.lists)

    def without(self, names: Collection[str]) -> "Form":
        return Form({name: values for name, values in self.lists.items() if name not in names})


def read_form(sent: Iterable[tuple[str, Any]]) -> Form:
    """Return the text fields of a form. Raises InvalidRequest where one has characters that cannot be stored."""
    lists: dict[str, list[str]] = {}
    for name, value in sent:
        if isinstance(value, UploadFile):
            continue
        if "\0" in value or "\0" in name:
            raise InvalidRequest(f"{name}: holds a NUL character", param=name)
        if value.strip():
            lists.setdefault(name, []).append(value.strip().replace("\r\n", "\n"))
    return Form(lists)


def parse_form(body: bytes) -> Form:
    """Parse a form as browsers send it. Raises InvalidRequest for too many fields, or as `read_form`."""
    if body.count(b"&") >= _MOST_FIELDS:
        raise InvalidRequest(f"the form cannot be read: it has more than {_MOST_FIELDS} fields")
    return read_form(parse_qsl(body.decode("latin-1"), keep_blank_values=True))


async def _posted(request: Request, state: State) -> Form:
    """Return the sent form, stored in the request's state: if the user must sign in first, no typed value is lost."""
    form = Form()
    if request.method not in _SAFE:
        sent_as = request.headers.get("content-type", "").partition(";")[0]
        if sent_as == "application/x-www-form-urlencoded":
            form = await parsed(await read_body(request), parse_form, state.parser_slots)
    request.state.posted = form
    return form


Posted = Annotated[Form, Depends(_posted)]


def require_same_origin(request: Request) -> None:
    """Require that a page of this site sent the request, as far as the browser tells. Raises Forbidden.

    Two sites with the same host name are different if only one of them uses https. (Behind an untrusted proxy, the
    request seems not to use https.) A browser that names no origin may still say that the site is another.
    """
    origin = request.headers.get("origin")
    is_other = request.headers.get("sec-fetch-site", "none") not in _OWN_SITE
    if origin is not None:
        scheme, _, host = origin.partition("://")
        is_other |= host != request.headers.get("host", "") or (request.url.scheme == "https" and scheme != "https")
    if is_other:
        raise Forbidden("this form was sent by a page of another site")


def session_of(request: Request, state: State) -> Principal:
    """Return the principal of the session; routes that change data also call `require_own_form`."""
    token = request.cookies.get(COOKIE, "")
    if not token:
        raise Unauthenticated("you are not signed in")
    try:
        with transaction(state.sessions) as session:
            caller = signed_in(session, token, state.secret)
    except Unauthenticated:
        state.rates.count_failure(client_address(request))
        raise
    state.rates.count_page(caller.principal.id)
    request.state.signed_in = caller
    request.state.principal = caller.principal
    request.state.csrf = form_token(token, state.secret)
    return caller.principal


class SignedInRoute(AuthenticatedRoute):
    """Route of a page's script, which sends JSON: the session is checked before the body is read."""

    async def admit(self, request: Request, role: Role | None) -> None:
        """Require a session. Raises Unauthenticated and RateLimited."""
        await run_in_threadpool(session_of, request, request.app.state.api)


def require_own_form(request: Request, posted: Form) -> None:
    """Require that a page of this session sent the form. Raises Forbidden."""
    require_same_origin(request)
    given = request.headers.get(CSRF_HEADER) or posted.get(CSRF_FIELD)
    if not hmac.compare_digest(given.encode(), request.state.csrf.encode()):
        raise Forbidden("this form belongs to an earlier session: load the page again and send it once more")


def _principal(request: Request, state: State, posted: Posted) -> Principal:
    """Return the principal of the session; a request that changes data needs the token of the session's pages."""
    principal = session_of(request, state)
    if request.method not in _SAFE:
        require_own_form(request, posted)
    return principal


Viewer = Annotated[Principal, with_role("viewer", _principal)]
Member = Annotated[Principal, with_role("member", _principal)]
Admin = Annotated[Principal, with_role("admin", _principal)]


@dataclass(frozen=True)
class Visit:
    """Visit of a page: its request, its transaction, and the signed-in caller."""

    request: Request
    session: Session
    caller: Principal

    @property
    def state(self) -> ApiState:
        state: ApiState = self.request.app.state.api
        return state


def remember(response: Response, request: Request, token: str, seconds: float, *, is_person: bool = False) -> None:
    """Set the session cookie of a browser, and the one that says that there was a session, and whether a person's."""
    is_secure = request.url.scheme == "https"
    before = _PERSON if is_person else _KEY
    for name, value, age in ((COOKIE, token, seconds), (SIGNED_IN_BEFORE, before, seconds + _REMEMBERED_SECONDS)):
        response.set_cookie(
            name, value, max_age=int(age), path=COOKIE_PATH, secure=is_secure, httponly=True, samesite="lax"
        )


def was_person(request: Request) -> bool:
    """Return whether the browser's last session was a person's."""
    return request.cookies.get(SIGNED_IN_BEFORE) == _PERSON


def forget(response: Response) -> None:
    """Remove both cookies of a browser, whose user meant to sign out."""
    for name in (COOKIE, SIGNED_IN_BEFORE):
        response.delete_cookie(name, path=COOKIE_PATH, httponly=True, samesite="lax")
