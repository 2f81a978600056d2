"""Stream of a job's events, continued over interrupted connections."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import httpx
from httpx_sse import EventSource, SSEError
from pydantic import ValidationError

from secateur.errors import ServerError, TooManyRequests, UnexpectedAnswer, Unreachable
from secateur.transport import Transport, segment
from secateur_wire.jobs import JobEvent

GIVE_UP_SECONDS: Final = 120
"""Longest time for which a server that answered before may be unavailable."""
RECONNECT_SECONDS: Final = 1.0
"""Pause before a new connection, unless the server asks for another."""
QUIET_SECONDS: Final = 60.0
"""Longest time without any data, not even a comment, before a stream counts as interrupted."""


def stream_events(
    transport: Transport, job_id: str, after: int | None, is_finished: Callable[[], bool]
) -> Iterator[JobEvent]:
    """Yield every event with a sequence above `after`, in order and once each, until the job has ended.

    An interrupted connection is opened again with `Last-Event-ID`, so that the server continues after the last event.
    An event that is sent twice is dropped, and a partial event is ignored.

    A stream is complete when the server closes it properly after an event that ends the job, or when it was opened
    after `is_finished` returned True (then there may be no events left). The close of the stream decides, not the
    event, because a retry adds events after one that ends the job.

    Raises Unreachable where the first connection fails, or none succeeds for `GIVE_UP_SECONDS`.
    """
    path = f"jobs/{segment(job_id)}/events"
    last = after
    pause = RECONNECT_SECONDS
    opened_before = False
    lost_at: float | None = None
    known_finished = False
    while True:
        ended = False
        try:
            with transport.stream(path, headers=_headers(last), quiet_seconds=QUIET_SECONDS) as stream:
                opened_before, lost_at = True, None
                if stream.status_code == httpx.codes.NO_CONTENT:
                    return
                for message in EventSource(stream).iter_sse():
                    pause = pause if message.retry is None else message.retry / 1000
                    if not message.data:
                        continue
                    event = _parse(message.data, stream.url)
                    if last is not None and event.sequence <= last:
                        continue
                    last, ended = event.sequence, event.ends_job
                    yield event
            if ended or known_finished:
                return
            known_finished = is_finished()
            if known_finished:
                continue
        except SSEError as error:
            raise UnexpectedAnswer(f"{transport.url} does not stream events: {error}") from error
        except (httpx.TransportError, Unreachable, ServerError, TooManyRequests) as error:
            lost_at = lost_at or time.monotonic()
            if not opened_before or time.monotonic() - lost_at > GIVE_UP_SECONDS:
                if isinstance(error, httpx.TransportError):
                    raise transport.unreachable(error) from error
                raise
        time.sleep(pause)


def _headers(last: int | None) -> Mapping[str, str]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    return headers if last is None else headers | {"Last-Event-ID": str(last)}


def _parse(data: str, url: httpx.URL) -> JobEvent:
    try:
        return JobEvent.model_validate_json(data)
    except ValidationError as error:
        raise UnexpectedAnswer(f"{url} sent an event this client cannot read: {data[:200]}") from error
