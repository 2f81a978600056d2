"""Routes of rules for pipelines, and of the exchange of their identity tokens for keys."""

from fastapi import Request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.dependencies import Admin, After, CreateOnce, DatabaseSession, Limit, State
from api.http.problem_documents import problems
from api.http.routing import Router
from api.process.proxies import client_address
from core.service.teams import workload_rules
from core.service.teams.schemas import WorkloadRuleBody, WorkloadTokenBody
from secateur_wire.base import Page
from secateur_wire.errors import (
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    SlowRequest,
    Unauthenticated,
    Unavailable,
)
from secateur_wire.teams import CreatedKey, WorkloadRule

router = Router(tags=["keys"])
_RULES = "/v1/workload-rules"


@router.get(_RULES, responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def list_workload_rules(
    caller: Admin, session: DatabaseSession, limit: Limit = 50, after: After = None
) -> Page[WorkloadRule]:
    """List the team's rules for pipelines, newest first."""
    return workload_rules.list_rules(session, caller.team_id, limit=limit, after=after)


@router.post(
    _RULES,
    status_code=201,
    response_model=WorkloadRule,
    responses=problems(Unauthenticated, Forbidden, IdempotencyConflict, InvalidRequest),
)
def create_workload_rule(body: WorkloadRuleBody, caller: Admin, state: State, once: CreateOnce) -> Response:
    """Create a rule: pipelines whose identity token has these claims get keys of the team for a short time.

    Pipelines ask for the token with the rule's `audience`.
    """

    def create(session: Session) -> tuple[int, BaseModel]:
        return 201, workload_rules.create_rule(session, caller, body, state.settings)

    return once.answer(caller, body, create)


@router.delete(f"{_RULES}/{{rule_id}}", status_code=204, responses=problems(Unauthenticated, Forbidden, NotFound))
def delete_workload_rule(rule_id: str, caller: Admin, session: DatabaseSession) -> None:
    """Delete a rule; keys that pipelines got by it are revoked."""
    workload_rules.delete_rule(session, caller, rule_id)


@router.post(
    "/v1/workload-keys",
    status_code=201,
    responses=problems(InvalidRequest, PayloadTooLarge, RateLimited, SlowRequest, Unavailable),
)
def exchange_workload_token(body: WorkloadTokenBody, request: Request, state: State) -> CreatedKey:
    """Exchange an identity token of a pipeline for a key, which is valid for `SECATEUR_WORKLOAD_KEY_SECONDS`.

    No key is needed: a rule of the team that the token is meant for must admit it. A token counts once. Pipelines of
    pull and merge requests are refused.
    """
    try:
        return state.workloads.exchange(state.sessions, body.token)
    except (Unauthenticated, Unavailable) as error:
        state.rates.count_failure(client_address(request))
        if isinstance(error, Unavailable):
            raise
        raise InvalidRequest(f"token: {error.message}", param="token") from None
