"""The search for a model of a new job, on the hub too: what is found, and a page that waits for no network."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx

from core.service.sources.hub_search import HubSearch
from core.settings import Settings
from tests.conftest import bearer
from tests.portal.browserless import Browserless
from tests.serving import lent_app, served
from tests.sources.hub_server import HubState
from tests.worker.conftest import eventually

LOADER = 'hx-get="/portal/new/hub"'


def test_models_of_the_hub_are_offered_once_the_page_is_there(
    live_api: httpx.Client, admin_key: str, hub: HubState, model: str
) -> None:
    hub.add("model", "forest/oak-1b")
    hub.add("model", "forest/oak-7b", gated=True)
    hub.add("model", "forest/hidden-oak", private=True)
    hub.add("dataset", "forest/oak-texts")
    with closing(Browserless(live_api, admin_key)) as somebody:
        page = somebody.main(f"/portal/new?search=OAK&model={model}")
        assert LOADER in page and "forest/" not in page and not hub.requests
        found = somebody.http.get("/portal/new/hub?search=OAK").text
        assert found.index("forest/oak-7b") < found.index("forest/oak-1b"), "most downloads first"
        assert "1.0 k downloads a month, gated" in found and found.count("<label") == 2
        page = somebody.main("/portal/new?search=oak")
        assert LOADER not in page and page.count('value="forest/oak-1b"') == 1
        chosen = somebody.main("/portal/new?search=oak&model=forest/oak-1b")
        assert chosen.count('value="forest/oak-1b"') == 1, "what is chosen already is not offered twice"
        assert LOADER not in somebody.main("/portal/new?search=oa") + somebody.main("/portal/new")
    assert hub.requests.count("GET /api/models") == 1 and set(hub.tokens_seen) == {None}


def test_a_hub_that_does_not_answer_is_left_alone_for_a_while(settings: Settings, hub: HubState) -> None:
    hub.add("model", "forest/oak-1b")
    off = HubSearch(settings.model_copy(update={"hub_search_seconds": 0}))
    assert off.known("oak") == () == off.search("oak") and not hub.requests
    hub.down = True
    search = HubSearch(settings)
    assert search.known("oak") is None and search.search("oak") == ()
    hub.down = False
    assert search.known("oak") == () == search.search("oak") and len(hub.requests) == 1
    assert [each.name for each in HubSearch(settings).search(" Oak  1b ")] == ["forest/oak-1b"]


def test_searches_that_a_silent_hub_keeps_waiting_keep_nobody_else_waiting(
    settings: Settings, hub: HubState, admin_key: str
) -> None:
    answers = threading.Event()
    hub.before_answer = lambda: answers.wait(60) and None
    patient = settings.model_copy(update={"hub_search_seconds": 60})
    with (
        lent_app(patient) as app,
        served(app) as url,
        httpx.Client(base_url=url, timeout=30) as client,
        closing(Browserless(client, admin_key)) as somebody,
        ThreadPoolExecutor(60) as pool,
    ):
        searches = [pool.submit(somebody.http.get, f"/portal/new/hub?search=oak{n}") for n in range(60)]
        try:
            eventually(lambda: sum(each.done() for each in searches) >= 56)
            assert client.get("/v1/methods", headers=bearer(admin_key)).status_code == 200
            assert len(hub.requests) == 4 == sum(not each.done() for each in searches)
        finally:
            answers.set()
        assert {each.result().status_code for each in searches} == {200}


def test_look_ups_that_a_silent_hub_keeps_waiting_leave_room_for_others(
    live_api: httpx.Client, admin_key: str, hub: HubState
) -> None:
    answers = threading.Event()
    hub.before_answer = lambda: answers.wait(60) and None

    def inspect(number: int) -> str:
        code: str = live_api.post("/v1/models/inspect", json={"model": f"forest/oak-{number}"}).json()["code"]
        return code

    with ThreadPoolExecutor(60) as pool:
        looks = [pool.submit(inspect, number) for number in range(60)]
        try:
            eventually(lambda: sum(each.done() for each in looks) >= 36)
            assert live_api.get("/v1/methods").status_code == 200
        finally:
            answers.set()
        assert {each.result() for each in looks} <= {"hub_unavailable", "unknown_model"}
