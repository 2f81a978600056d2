"""Dependencies of the routes: the process's state, a transaction, and the authenticated caller."""

import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Header, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.process.proxies import client_address
from api.state import ApiState
from core.database import transaction
from core.pagination import LONGEST_CURSOR
from core.service.jobs.idempotency import Answer, IdempotentRequest, answer_once, stored_answer
from core.service.teams.keys import authenticate
from core.service.teams.principal import Principal
from secateur_wire.errors import Unauthenticated
from secateur_wire.requests import spelled
from secateur_wire.teams import Role

_bearer = HTTPBearer(auto_error=False, description="An API key: sct_…", scheme_name="ApiKey")


async def _state(request: Request) -> ApiState:
    state: ApiState = request.app.state.api
    return state


State = Annotated[ApiState, Depends(_state)]


async def _session(state: State) -> AsyncIterator[Session]:
    """Yield the session of a transaction that ends with the request.

    A transaction begins with its first statement, so only its end needs a thread. That thread is not from the pool,
    because all threads of the pool may be waiting for the connection that is released here.
    """
    pending = transaction(state.sessions)
    session = pending.__enter__()
    try:
        yield session
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(pending.__exit__, *sys.exc_info(), limiter=CapacityLimiter(1))


DatabaseSession = Annotated[Session, Depends(_session, scope="function")]
"""One transaction around the route, committed before the answer is sent."""


async def authenticate_caller(request: Request) -> Principal:
    """Authenticate the caller within its rate limit, and store the principal in the request's state.

    Routes call this before they read the body. Raises Unauthenticated and RateLimited.
    """
    return await to_thread.run_sync(_authenticate, request, request.app.state.api, await _bearer(request))


def _authenticate(request: Request, state: ApiState, credentials: HTTPAuthorizationCredentials | None) -> Principal:
    try:
        if credentials is None:
            raise Unauthenticated("send an API key: Authorization: Bearer sct_…")
        # A separate transaction: the last use is stored even if the request fails.
        with transaction(state.sessions) as session:
            principal = authenticate(session, credentials.credentials, state.secret)
    except Unauthenticated as error:
        # A valid key is never refused because of its address: many callers share the address of a proxy or a NAT.
        refuse(request, state, credentials.credentials if credentials else None, error)
        raise
    state.rates.count_request(principal.id)
    request.state.principal = principal
    return principal


def authentication_of(request: Request, state: ApiState) -> Callable[[Session], Principal]:
    """Return a function that authenticates the caller of a request anew; it raises Unauthenticated."""
    token = request.headers["Authorization"].partition(" ")[2]
    return lambda session: authenticate(session, token, state.secret)


async def _principal(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Return the caller that the route has authenticated."""
    principal: Principal = request.state.principal
    return principal


def refuse(request: Request, state: ApiState, token: str | None, error: Unauthenticated) -> None:
    """Count a request without a valid key; record it if it has a key. Raises RateLimited."""
    state.rates.count_failure(client_address(request))
    if token:
        state.refused_keys.note(client_address(request), token, error.message)


_roles: dict[Callable[..., Any], Role] = {}


def role_of(dependency: Callable[..., Any]) -> Role | None:
    """Return the role that a dependency requires of an API key; None where it requires none."""
    return _roles.get(dependency)


def with_role(role: Role, principal_of: Callable[..., Any]) -> Any:
    """Return a dependency that finds the caller with `principal_of` and requires `role` or a higher one."""

    async def check(principal: Annotated[Principal, Depends(principal_of)]) -> Principal:
        principal.require(role)
        return principal

    if principal_of is _principal:
        _roles[check] = role
    return Security(check, scopes=[role])


Viewer = Annotated[Principal, with_role("viewer", _principal)]
Member = Annotated[Principal, with_role("member", _principal)]
Admin = Annotated[Principal, with_role("admin", _principal)]

Limit = Annotated[
    int, Query(ge=1, le=200, description="Items on a page; fewer, at least one, where they are longer than 4 MiB.")
]
After = Annotated[str | None, Query(max_length=LONGEST_CURSOR, description="`next_after` of the page before.")]
Search = Annotated[
    str | None,
    Query(
        max_length=200,
        description="Words, each of which begins a word of the job's id, model, method or a value of its metadata, in "
        "small or capital letters. Words are parted by whatever ASCII has besides letters and digits: `oak 7` finds "
        "`org/oak-7b`, and `ak` does not.",
    ),
]

Quality = Annotated[
    Annotated[
        str,
        spelled(
            "^(perplexity|bits_per_byte|accuracy):.",
            "perplexity:, bits_per_byte: or accuracy: and the name of a set",
            max_length=400,
        ),
    ]
    | None,
    Query(
        description="What to compare by: perplexity:SET, bits_per_byte:SET, accuracy:SET, accuracy:TASK or "
        "accuracy:task_mean; unset: what most of the jobs have.",
    ),
]


Read = TypeVar("Read")


@dataclass(frozen=True)
class IdempotentCreation:
    """Creating request that is executed once per Idempotency-Key. `route` is its method and path."""

    state: ApiState
    route: str
    key: str | None

    def answer(
        self, caller: Principal, body: BaseModel | None, create: Callable[[Session], tuple[int, BaseModel]]
    ) -> Response:
        """Return the answer of `create` (status and document), or the stored first answer, marked as replayed.

        Everything happens in one transaction, committed when this returns. Raises IdempotencyConflict.
        """

        def created() -> Answer:
            status, document = create(session)
            return Answer(status, document.model_dump_json().encode())

        request = self._request(caller, body)
        with transaction(self.state.sessions) as session:
            if request is None:
                return _respond(created(), replayed=False)
            answer, replayed = answer_once(session, request, created, self.state.settings.idempotency_seconds)
            return _respond(answer, replayed=replayed)

    def answer_after(
        self,
        caller: Principal,
        body: BaseModel,
        read: Callable[[], Read],
        create: Callable[[Session, Read], tuple[int, BaseModel]],
    ) -> Response:
        """Return the answer of `create` to what `read` returns.

        `read` waits for disk or network, so it is called before the transaction begins, and not where there is a first
        answer already. Raises IdempotencyConflict.
        """
        if (request := self._request(caller, body)) is not None:
            with transaction(self.state.sessions) as session:
                first = stored_answer(session, request)
            if first is not None:
                return _respond(first, replayed=True)
        content = read()
        return self.answer(caller, body, lambda session: create(session, content))

    def _request(self, caller: Principal, body: BaseModel | None) -> IdempotentRequest | None:
        if self.key is None:
            return None
        return IdempotentRequest(
            team_id=caller.team_id,
            key=self.key,
            request=f"{self.route}\n{body.model_dump_json() if body else ''}".encode(),
            secret=self.state.secret,
        )


async def _once(
    request: Request,
    state: State,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=255, description="Same key and body: the first answer is sent again."),
    ] = None,
) -> IdempotentCreation:
    return IdempotentCreation(state, f"{request.method} {request.url.path}", idempotency_key)


def _respond(answer: Answer, *, replayed: bool) -> Response:
    headers = {"Idempotency-Replayed": "true"} if replayed else {}
    return Response(answer.body, answer.status, headers, media_type="application/json")


CreateOnce = Annotated[IdempotentCreation, Depends(_once)]
