import threading
import time

import pytest
from starlette.responses import PlainTextResponse, Response

from bench.parts import free_port
from secateur import Client, Event, errors
from secateur import events as events_module
from tests.client.script import JOB_ID, KEY, Script, job, life, sse
from tests.client.scripted_server import serving

PATH = f"/v1/jobs/{JOB_ID}/events"


def sequences(found: list[Event]) -> list[int]:
    return [each.sequence for each in found]


def test_events_come_in_order_and_end_with_the_job(client: Client, script: Script) -> None:
    script.events = life("succeeded")
    found = list(client.events(JOB_ID))
    assert [each.model_dump(mode="json") for each in found] == script.events
    assert found[-1].ends_job
    assert "last-event-id" not in script.requests("GET", PATH)[0].headers


@pytest.mark.parametrize("replays", [0, 3])
@pytest.mark.parametrize("step", [89, pytest.param(17, marks=pytest.mark.nightly)])
def test_no_event_is_lost_or_doubled_wherever_the_connection_breaks(
    client: Client, script: Script, step: int, replays: int
) -> None:
    script.events = life("succeeded")
    script.replays = replays
    length = 30 + sum(len(sse(each)) for each in script.events)
    for cut in range(0, length, step):
        script.event_cuts = [cut, cut // 2 + 200]
        assert sequences(list(client.events(JOB_ID))) == list(range(1, 10)), cut


def test_a_retry_behind_an_end_is_part_of_the_story(client: Client, script: Script) -> None:
    script.events = life("failed", "succeeded")
    assert sequences(list(client.events(JOB_ID))) == list(range(1, 19))
    script.event_cuts = [30 + sum(len(sse(each)) for each in script.events[:9]) + 5]
    assert sequences(list(client.events(JOB_ID))) == list(range(1, 19))


def test_behind_the_last_event_of_an_ended_job_there_is_nothing(client: Client, script: Script) -> None:
    script.events = life("succeeded")
    assert list(client.events(JOB_ID, after=9)) == []
    script.answers[f"GET {PATH}"] = Response(status_code=204)
    assert list(client.events(JOB_ID, after=9)) == []


def test_a_server_that_restarts_is_waited_for(script: Script) -> None:
    script.events = life("succeeded")
    script.closes_after = [4]
    script.job = job(status="running")
    found: list[Event] = []

    def follow() -> None:
        found.extend(client.events(JOB_ID))

    with serving(script, free_port()) as url:
        client = Client(url, KEY)
        script.stays_open = True
        thread = threading.Thread(target=follow)
        thread.start()
        while not script.requests("GET", PATH):
            time.sleep(0.01)
    script.stopping = script.stays_open = False
    with serving(script, port=int(url.rsplit(":", 1)[1])):
        thread.join(timeout=60)
        assert not thread.is_alive()
    client.close()
    assert sequences(found) == list(range(1, 10))


def test_a_server_that_stays_away_is_given_up(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "GIVE_UP_SECONDS", 0.3)
    script.events = life("succeeded")
    script.closes_after = [4]
    script.stays_open = True
    with serving(script) as url:
        client = Client(url, KEY)
        stream = client.events(JOB_ID)
        assert sequences([next(stream) for _ in range(4)]) == [1, 2, 3, 4]
    with client, pytest.raises(errors.Unreachable, match="secateur serve"):
        next(stream)


def test_what_is_no_event_stream_is_recognised(client: Client, script: Script) -> None:
    script.answers[f"GET {PATH}"] = PlainTextResponse("hello")
    with pytest.raises(errors.UnexpectedAnswer, match="does not stream events"):
        next(client.events(JOB_ID))
    script.answers[f"GET {PATH}"] = Response(b"data: hello\n\n", media_type="text/event-stream")
    with pytest.raises(errors.UnexpectedAnswer, match="cannot read: hello"):
        next(client.events(JOB_ID))
