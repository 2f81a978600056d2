"""A hub that is away, silent or odd: it delays and uses up nothing of those who do not need it."""

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from core.service.jobs.resolution.hub_lookup import HubLookup
from core.service.sources.hub import Hub
from core.service.sources.hub_outage import HubOutage
from core.service.teams.server_secret import server_secret
from core.service.triggers.context import TriggerContext
from core.service.triggers.due import MOST_FAILURES
from core.settings import Settings
from core.storage import Store
from secateur_wire.errors import HubUnavailable, UnknownModel
from tests.duties.conftest import Dispatcher
from tests.sources.hub_server import HubState, hub_server
from tests.triggers.conftest import Fixed, fire, make_trigger
from tests.worker.conftest import eventually

Sessions = sessionmaker[Session]


@pytest.fixture
def hub() -> Iterator[HubState]:
    with hub_server() as hub:
        yield hub


@pytest.fixture
def settings(settings: Settings, hub: HubState) -> Settings:
    return settings.model_copy(update={"hub_endpoint": hub.endpoint})


@pytest.fixture
def body(trigger_body: dict[str, Any]) -> dict[str, Any]:
    placeholders = {**trigger_body["placeholders"], "commit": {"path": "/scheduled_at"}}
    schedule = {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}
    return trigger_body | {"placeholders": placeholders, "schedule": schedule}


@pytest.fixture
def context(settings: Settings, sessions: Sessions, store: Store) -> TriggerContext:
    return TriggerContext(sessions, store, settings, HubLookup(settings, sessions), server_secret(settings))


def make_hub_trigger(api: TestClient, body: dict[str, Any], dispatcher: Dispatcher, name: str) -> Fixed:
    """Make a trigger on a local model, which is then one on the hub: so the hub is not asked when it is saved."""
    trigger = make_trigger(api, body, name=name)
    model = f"jsonb_build_object('model', 'forest/{name}')"
    dispatcher.execute(f"UPDATE triggers SET template = template || {model} WHERE name = :name", name=name)
    return trigger


def due_at(trigger: Fixed) -> datetime:
    return datetime.fromisoformat(trigger.api.get(trigger.path).json()["next_fire_at"])


def test_a_silent_hub_delays_those_alone_who_name_something_there(
    member_api: TestClient, body: dict[str, Any], dispatcher: Dispatcher, hub: HubState
) -> None:
    answers = threading.Event()
    hub.before_answer = lambda: answers.wait(60) and None
    waiting = [make_hub_trigger(member_api, body, dispatcher, f"oak-{number}") for number in range(3)]
    local = make_trigger(member_api, body, name="local")
    dispatcher.execute("UPDATE triggers SET next_fire_at = now() - interval '1 second'")
    dispatcher.execute("UPDATE triggers SET next_fire_at = now() - interval '9 seconds' WHERE name <> 'local'")
    try:
        assert dispatcher.run("triggers") == 1, "while the hub says nothing"
        assert [each["outcome"] for each in local.firings()] == ["accepted"]
        eventually(lambda: hub.requests)
        assert dispatcher.run("triggers") is None, "those that wait are not begun again"
        assert len(hub.requests) == 1, "a team waits in one thread"
    finally:
        answers.set()
    for trigger in waiting:
        [firing] = eventually(trigger.firings)
        assert (firing["outcome"], firing["error"]["code"]) == ("refused", "unknown_model")


def test_an_outage_keeps_a_due_time_until_the_next_one_and_disables_nothing(
    member_api: TestClient, body: dict[str, Any], dispatcher: Dispatcher, hub: HubState, context: TriggerContext
) -> None:
    trigger = make_hub_trigger(member_api, body, dispatcher, "oak")
    hub.down = True
    due = due_at(trigger)
    for seconds in (0, 30, 60):
        dispatcher.execute("DELETE FROM row_failures")
        assert fire(context, due + timedelta(seconds=seconds)) == []
    assert (due_at(trigger), trigger.firings()) == (due, []), "it is kept"
    for days in range(1, MOST_FAILURES + 2):
        dispatcher.execute("DELETE FROM row_failures")
        assert fire(context, due + timedelta(days=days, hours=1)) == []
        assert due_at(trigger) > due + timedelta(days=days - 1, hours=20)
    firings = trigger.firings()
    assert {each["error"]["code"] for each in firings} == {"hub_unavailable"} and len(firings) == MOST_FAILURES + 1
    assert all("missed" in each["note"] for each in firings)
    assert member_api.get(trigger.path).json()["enabled"]
    assert dispatcher.execute("SELECT failures FROM triggers") == [(0,)]


def test_a_hub_that_does_not_answer_for_two_repositories_is_left_alone(settings: Settings, hub: HubState) -> None:
    client = Hub(settings, outage := HubOutage())

    def cut() -> None:
        raise ConnectionResetError

    hub.before_answer = cut
    for _ in range(3):
        with pytest.raises(HubUnavailable):
            client.listing("model", "forest/oak", None)
    assert not outage.seconds_left, "one repository may only be slow"
    with pytest.raises(HubUnavailable):
        client.listing("model", "forest/birch", None)
    asked = len(hub.requests)
    assert outage.seconds_left > 50
    with pytest.raises(HubUnavailable, match="asked again in"):
        client.listing("model", "forest/elm", None)
    assert len(hub.requests) == asked
    hub.before_answer = lambda: None
    with pytest.raises(UnknownModel):
        Hub(settings, HubOutage()).listing("model", "forest/elm", None)
