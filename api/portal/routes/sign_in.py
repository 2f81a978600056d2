"""Sign-in with an API key, and sign-out."""

from typing import Annotated
from urllib.parse import quote, urlencode, urlsplit

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from api.dependencies import State, refuse
from api.http.problem_documents import ProblemResponse
from api.portal.rendering import is_partial, page
from api.portal.session import (
    COOKIE,
    CSRF_FIELD,
    SECRET_FIELDS,
    SIGNED_IN_BEFORE,
    Form,
    Posted,
    Viewer,
    forget,
    remember,
    require_same_origin,
)
from core.database import transaction
from core.service.teams import sessions
from core.service.teams.keys import authenticate
from secateur_wire.errors import Unauthenticated

router = APIRouter()

HOME = "/portal/jobs"
SIGN_IN = "/portal/sign-in"
_LONGEST_ADDRESS = 16_000
"""Maximum length of an address that carries typed values."""


@router.api_route("/", methods=["GET", "HEAD"])
def home() -> Response:
    return RedirectResponse(HOME, 303)


@router.get("/sign-in")
def sign_in_page(request: Request, then: Annotated[str, Query(max_length=_LONGEST_ADDRESS)] = HOME) -> Response:
    return _sign_in_page(request, own_path(then))


@router.post("/sign-in")
def sign_in(request: Request, state: State, posted: Posted) -> Response:
    """Sign in and redirect to `then`; an invalid key is reported at its field."""
    require_same_origin(request)
    then = own_path(posted.get("then", HOME))
    key = posted.get("key")
    try:
        seconds = state.settings.session_seconds
        with transaction(state.sessions) as session:
            principal = authenticate(session, key, state.secret)
            state.rates.count_request(principal.key_id)
            token = sessions.sign_in(session, principal, state.secret, seconds=seconds)
    except Unauthenticated as error:
        refuse(request, state, key, error)
        return _sign_in_page(request, then, error=error.message)
    response = RedirectResponse(then, 303)
    remember(response, request, token, seconds)
    return response


@router.post("/sign-out")
def sign_out(request: Request, caller: Viewer, state: State, posted: Posted) -> Response:
    """End this session, or with `everywhere` every session of the same key."""
    with transaction(state.sessions) as session:
        if posted.get("everywhere"):
            sessions.sign_out_everywhere(session, caller)
        sessions.sign_out(session, caller, request.cookies[COOKIE], state.secret)
    response = RedirectResponse(SIGN_IN, 303)
    forget(response)
    return response


def ask_to_sign_in(request: Request, problem: ProblemResponse) -> Response:
    """Ask for the key where a session is missing or over, and continue afterwards with the typed values."""
    if is_partial(request):
        then = urlsplit(request.headers.get("HX-Current-URL", "")).path
        context = {"problem": problem, "sign_in": f"{SIGN_IN}?then={quote(own_path(then))}"}
        return page(request, "signed_out_notice.html", context, status=401)
    if request.method in ("GET", "HEAD"):
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{SIGN_IN}?then={quote(request.url.path + query)}", 303)
    then = _with_fields(_page_of(request), getattr(request.state, "posted", Form()))
    return _sign_in_page(request, then, error=problem.detail, is_form=True)


def _sign_in_page(request: Request, then: str, *, error: str | None = None, is_form: bool = False) -> Response:
    """Render the page that asks for a key; `is_form` where a form was sent too late."""
    is_expired = SIGNED_IN_BEFORE in request.cookies
    context = {"then": then, "is_expired": is_expired, "is_form": is_form, "error": None if is_form else error}
    return page(request, "sign_in.html", context, status=401 if error else 200)


def _page_of(request: Request) -> str:
    """Return the page that the form was sent from, else the address that it was sent to."""
    referrer = urlsplit(request.headers.get("referer", ""))
    return own_path(referrer.path if referrer.netloc == request.headers.get("host") else request.url.path)


def _with_fields(path: str, posted: Form) -> str:
    kept = posted.without((CSRF_FIELD, *SECRET_FIELDS)).lists
    fields = [(name, value) for name, values in kept.items() for value in values]
    address = f"{path}?{urlencode(fields)}" if fields else path
    return address if len(address) <= _LONGEST_ADDRESS else path


def own_path(path: str) -> str:
    r"""Return the path if it is one of the portal, else the home page's.

    `//host` and `/\host` are other sites for a browser.
    """
    is_own = path.startswith("/portal/") and "\\" not in path and "//" not in path.partition("?")[0]
    return path if is_own and not path.startswith(SIGN_IN) else HOME
