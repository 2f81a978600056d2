"""Routes that authenticate the caller before they read a body, and parse bodies outside of the event loop."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from api.dependencies import authenticate_caller, role_of
from api.http.bodies import QUICK_BYTES, parse_body, parsed, read_body
from secateur_wire.teams import Role

_MOST_ERRORS: Final = 100
"""Maximum number of reported faults of one body."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class AuthenticatedRoute(APIRoute):
    """Route that authenticates its caller and checks the role before it reads the body.

    FastAPI itself parses the body first, in the event loop.
    """

    async def admit(self, request: Request, role: Role | None) -> None:
        """Require that the caller may use the route. Raises Unauthenticated, Forbidden and RateLimited."""
        if role is not None:
            (await authenticate_caller(request)).require(role)

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        role = _needed_role(self.dependant)

        async def handle_authenticated(request: Request) -> Response:
            await self.admit(request, role)
            if self.body_field is not None:
                body = await read_body(request)
                value = await parsed(body, self._parse, request.app.state.api.parser_slots) if body else None
                request = _JsonRequest(request, body, value)
            return await handle(request)

        return handle_authenticated

    def _parse(self, body: bytes) -> Any:
        """Parse a body, and refuse one with many faults. Raises InvalidRequest and RequestValidationError.

        FastAPI validates the body again in the event loop, which takes long only for many faults.
        """
        value = parse_body(body)
        if len(body) > QUICK_BYTES:
            assert self.body_field is not None
            _, errors = self.body_field.validate(value, loc=("body",))
            if len(errors) > _MOST_ERRORS:
                raise RequestValidationError(errors[:_MOST_ERRORS])
        return value


class Router(APIRouter):
    """Router of authenticated routes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=AuthenticatedRoute, **options)


class _JsonRequest(Request):
    """Request with a body that was read and parsed already."""

    def __init__(self, request: Request, body: bytes, value: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._read, self._value = body, value

    async def body(self) -> bytes:
        return self._read

    async def json(self) -> Any:
        return self._value


def _needed_role(dependant: Dependant) -> Role | None:
    """Return the role that a route needs; None for a route without a key."""
    roles = (role_of(each.call) for each in _inside(dependant) if each.call is not None)
    return next((role for role in roles if role is not None), None)


def _inside(dependant: Dependant) -> Iterator[Dependant]:
    for each in dependant.dependencies:
        yield each
        yield from _inside(each)
