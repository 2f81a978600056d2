"""The search for a model of a new job, on the hub too: what is found, and a page that waits for no network."""

from contextlib import closing

import httpx

from core.service.sources.hub_search import HubSearch
from core.settings import Settings
from tests.portal.browserless import Browserless
from tests.sources.hub_server import HubState

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
