"""Requests that fire a trigger: read completely, with any error stored for the trigger's history."""

from typing import Annotated

from fastapi import BackgroundTasks, Depends, Header, Request
from starlette.responses import Response

from api.dependencies import State
from api.events.after_commit import hint_after_commit
from api.http.bodies import parse_body, parsed, read_body
from api.process.proxies import client_address
from api.state import ApiState
from core.database import transaction
from core.service.triggers import service
from core.service.triggers.authentication import LONGEST_EVENT_ID, SentHeaders
from core.service.triggers.firing import FiringResult, TriggerDelivery
from core.service.triggers.tables import TriggerRow
from secateur_wire.errors import ApiError, NotFound

PAYLOAD = {
    "requestBody": {
        "required": False,
        "description": "The payload: any JSON; nothing is an empty object.",
        "content": {"application/json": {"schema": {}}},
    }
}
"""Value of `openapi_extra` for a route that takes a payload."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=LONGEST_EVENT_ID,
        description="Id of the event: sent again, it makes no second job, and the first is named again.",
    ),
]


async def _delivery(
    request: Request,
    state: State,
    idempotency_key: IdempotencyKey = None,
) -> TriggerDelivery:
    """Read a delivery from a caller with an API key, which needs no other proof."""
    return await _read_delivery(request, state, SentHeaders(idempotency_key=idempotency_key))


def _trigger_of_url(token: str, request: Request, state: State) -> TriggerRow:
    """Return the trigger of this secret URL and count the firing, before anything is read.

    Raises NotFound and RateLimited.
    """
    try:
        with transaction(state.sessions) as session:
            trigger = service.find_by_token(session, token, state.secret)
    except NotFound:
        state.rates.count_failure(client_address(request))
        raise
    state.rates.count_firing(trigger.id)
    return trigger


TriggerOfUrl = Annotated[TriggerRow, Depends(_trigger_of_url)]


async def _proven(
    request: Request,
    state: State,
    _: TriggerOfUrl,
    idempotency_key: IdempotencyKey = None,
    webhook_id: Annotated[
        str | None,
        Header(min_length=1, max_length=LONGEST_EVENT_ID, description="Standard Webhooks: the event's id."),
    ] = None,
    webhook_timestamp: Annotated[
        str | None, Header(max_length=100, description="Standard Webhooks: seconds since 1970.")
    ] = None,
    webhook_signature: Annotated[
        str | None, Header(max_length=2000, description="Standard Webhooks: v1,BASE64, several with spaces between.")
    ] = None,
    x_webhook_secret: Annotated[
        str | None, Header(max_length=500, description="The trigger's hub secret, as the hub sends it.")
    ] = None,
) -> TriggerDelivery:
    """Read a delivery from a sender that knows the URL, with the headers that may authenticate the sender."""
    headers = SentHeaders(webhook_id, webhook_timestamp, webhook_signature, x_webhook_secret, idempotency_key)
    return await _read_delivery(request, state, headers)


async def _read_delivery(request: Request, state: ApiState, headers: SentHeaders) -> TriggerDelivery:
    """Read and parse the body; an error (too long, too slow, not JSON) is stored, and the route raises it."""
    try:
        body = await read_body(request)
    except ApiError as error:
        declared = request.headers.get("content-length", "")
        return TriggerDelivery(
            headers, size=int(declared) if declared.isdigit() and len(declared) < 16 else 0, refusal=error
        )
    try:
        payload = await parsed(body, parse_body, state.parser_slots) if body else {}
        return TriggerDelivery(headers, body, payload, len(body))
    except ApiError as error:
        return TriggerDelivery(headers, body, size=len(body), refusal=error)


SentByMember = Annotated[TriggerDelivery, Depends(_delivery)]
SentToUrl = Annotated[TriggerDelivery, Depends(_proven)]


def firing_response(fired: FiringResult, state: ApiState, background: BackgroundTasks) -> Response:
    """Answer 201 for a new job (its workers get a hint), 200 without one or for an earlier job."""
    if fired.job is not None:
        hint_after_commit(background, state, fired.job)
    headers = {"Idempotency-Replayed": "true"} if fired.firing.outcome == "duplicate" else {}
    status = 201 if fired.firing.outcome == "accepted" else 200
    return Response(fired.firing.model_dump_json(), status, headers, media_type="application/json")
