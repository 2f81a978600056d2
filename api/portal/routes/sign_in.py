"""Sign-in with an API key, the page that offers every way to sign in, the choice of a team, and sign-out."""

from typing import Annotated
from urllib.parse import quote, urlencode, urlsplit

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from api.dependencies import State, refuse
from api.http.problem_documents import ProblemResponse
from api.portal.rendering import address_of, is_partial, page
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
    was_person,
)
from api.state import ApiState
from core.database import transaction
from core.service.teams import sessions
from core.service.teams.keys import authenticate
from core.service.teams.openid.provider import id_token_of
from secateur_wire.errors import Unauthenticated

router = APIRouter()

HOME = "/portal/jobs"
SIGN_IN = "/portal/sign-in"
OPENID = f"{SIGN_IN}/oidc"
"""Sign-in with an account of the operator's provider."""
LONGEST_ADDRESS = 16_000
"""Maximum length of an address that carries typed values."""


@router.api_route("/", methods=["GET", "HEAD"])
def home() -> Response:
    return RedirectResponse(HOME, 303)


@router.get("/sign-in")
def show_sign_in(request: Request, then: Annotated[str, Query(max_length=LONGEST_ADDRESS)] = HOME) -> Response:
    return sign_in_page(request, own_path(then))


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
            state.rates.count_request(principal.id)
            token = sessions.sign_in(session, principal, state.secret, seconds=seconds)
    except Unauthenticated as error:
        refuse(request, state, key, error)
        return sign_in_page(request, then, error=error.message)
    response = RedirectResponse(then, 303)
    remember(response, request, token, seconds)
    return response


@router.post("/sign-out")
def sign_out(request: Request, caller: Viewer, state: State, posted: Posted) -> Response:
    """End this session, or with `everywhere` every session of the same key or person.

    A person is led on to the provider, to sign out there too: by a page, since the content policy allows no form to
    lead to another site.
    """
    with transaction(state.sessions) as session:
        sealed = sessions.sign_out(session, caller, request.cookies[COOKIE], state.secret)
        if posted.get("everywhere"):
            sessions.sign_out_everywhere(session, caller)
    provider = state.openid if caller.person_id is not None else None
    id_token = None if sealed is None else id_token_of(sealed, state.secret)
    onward = provider.end_session_url(id_token, f"{address_of(request)}{SIGN_IN}") if provider else None
    if provider is None or onward is None:
        response: Response = RedirectResponse(SIGN_IN, 303)
    else:
        request.state.signed_in = None
        response = page(request, "signed_out.html", {"onward": onward, "host": provider.host})
    forget(response)
    return response


@router.post("/session/team")
def choose_team(request: Request, caller: Viewer, state: State, posted: Posted) -> Response:
    """Act for another team of the person from now on."""
    with transaction(state.sessions) as session:
        sessions.choose_team(session, caller, posted.get("team"), request.cookies[COOKIE], state.secret)
    return RedirectResponse(HOME, 303)


def ask_to_sign_in(request: Request, problem: ProblemResponse) -> Response:
    """Ask to sign in where a session is missing or over, and continue afterwards with the typed values.

    A person whose session is over is led to the provider, which asks nothing where it knows the person still.
    """
    state: ApiState = request.app.state.api
    if is_partial(request):
        then = urlsplit(request.headers.get("HX-Current-URL", "")).path
        context = {"problem": problem, "sign_in": f"{SIGN_IN}?then={quote(own_path(then))}"}
        return page(request, "signed_out_notice.html", context, status=401)
    if request.method in ("GET", "HEAD"):
        query = f"?{request.url.query}" if request.url.query else ""
        then = quote(request.url.path + query)
        if state.openid is not None and was_person(request) and len(then) <= LONGEST_ADDRESS:
            return RedirectResponse(f"{OPENID}?silent=1&then={then}", 303)
        return RedirectResponse(f"{SIGN_IN}?then={then}", 303)
    then = _with_fields(_page_of(request), getattr(request.state, "posted", Form()))
    return sign_in_page(request, then, is_form=True)


def sign_in_page(
    request: Request,
    then: str,
    *,
    error: str | None = None,
    openid_error: str | None = None,
    is_form: bool = False,
) -> Response:
    """Render the page that asks to sign in: with an account, if there is a provider, and with a key.

    `error` is what is wrong with the key, `openid_error` why the sign-in with an account was refused; `is_form` where a
    form was sent too late.
    """
    state: ApiState = request.app.state.api
    is_refused = error is not None or openid_error is not None
    asks_for_key = state.openid is None or not state.settings.oidc_hides_keys or error is not None
    context = {
        "then": then,
        "is_expired": SIGNED_IN_BEFORE in request.cookies,
        "is_form": is_form,
        "error": error,
        "openid_error": openid_error,
        "openid": None if state.openid is None else f"{OPENID}?then={quote(then)}",
        "host": None if state.openid is None else state.openid.host,
        "asks_for_key": asks_for_key or request.query_params.get("with") == "key",
    }
    return page(request, "sign_in.html", context, status=401 if is_refused or is_form else 200)


def _page_of(request: Request) -> str:
    """Return the page that the form was sent from, else the address that it was sent to."""
    referrer = urlsplit(request.headers.get("referer", ""))
    return own_path(referrer.path if referrer.netloc == request.headers.get("host") else request.url.path)


def _with_fields(path: str, posted: Form) -> str:
    kept = posted.without((CSRF_FIELD, *SECRET_FIELDS)).lists
    fields = [(name, value) for name, values in kept.items() for value in values]
    address = f"{path}?{urlencode(fields)}" if fields else path
    return address if len(address) <= LONGEST_ADDRESS else path


def own_path(path: str) -> str:
    r"""Return the path if it is one of the portal, else the home page's.

    `//host` and `/\host` are other sites for a browser.
    """
    is_own = path.startswith("/portal/") and "\\" not in path and "//" not in path.partition("?")[0]
    return path if is_own and not path.startswith(SIGN_IN) else HOME
