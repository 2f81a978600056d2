"""News of a job as messages to its page: of each batch of events one, taken whole or not at all."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session
from sse_starlette import ServerSentEvent

from api.events.stream import KEEP_ALIVE_SECONDS, Turn
from api.portal.rendering import fragment
from api.portal.views import job_page
from api.portal.views.metric_curves import curves_of
from core.service.jobs.random_baseline import with_random_baseline
from core.service.jobs.snapshots import metric_names, take_snapshot
from secateur_wire.jobs import EventPage

OVER = "over"
"""Name of the event that ends a stream: the job is over, and the page has all of it."""


def page_turn(
    team_id: str, job_id: str, known: Mapping[str, Any], require_signed_in: Callable[[Session], None]
) -> Turn:
    """Return a turn that renders those parts of the page that new events change.

    `known` holds further variables of the templates. A page whose session ended gets nothing more (`require_signed_in`
    raises Unauthenticated).
    """
    drawn: set[str] | None = None
    checked_at = time.monotonic()

    def turn(session: Session, page: EventPage, is_over: bool) -> Sequence[ServerSentEvent]:
        nonlocal drawn, checked_at
        if time.monotonic() - checked_at >= KEEP_ALIVE_SECONDS:
            require_signed_in(session)
            checked_at = time.monotonic()
        if not page.data and not is_over:
            return []
        types = {event.type for event in page.data}
        is_changed = is_over or bool(types & {"status", "stage"})
        now = take_snapshot(session, team_id, job_id)
        context: dict[str, Any] = {"job": now.job, "is_changed": is_changed, "is_over": is_over}
        if is_changed or "progress" in types:
            context |= job_page.head(now, page.data)
        if is_changed:
            context |= job_page.stages(session, team_id, now)
        if is_over:
            now = replace(now, job=with_random_baseline(session, team_id, now.job))
            context |= job_page.result(session, team_id, now)
        curves = curves_of(page.data)
        if curves and drawn is None:
            drawn = metric_names(session, job_id, up_to=page.data[0].sequence - 1)
        html = fragment(
            "job/live_updates.html",
            **known,
            **context,
            types=types,
            lines=[event for event in page.data if event.type == "log"],
            curves=curves,
            drawn=drawn or set(),
        )
        if drawn is not None:
            drawn |= {curve.name for curve in curves}
        messages = [ServerSentEvent(html, id=str(page.next_after))]
        return [*messages, ServerSentEvent("", event=OVER)] if is_over else messages

    return turn
