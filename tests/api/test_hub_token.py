"""A team's token of the hub is written by its admins, and shown to nobody."""

from contextlib import closing
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from tests.client.command_line import RunHere
from tests.portal.browserless import Browserless

PATH = "/v1/team/hub-token"
TOKEN = "hf_a_token_that_reads"


@pytest.mark.parametrize("token", ["hf_two words", "hf_line\n", "", "hf_ü", 7, None])
def test_what_can_be_no_token_is_refused_and_not_quoted(lasting_api: TestClient, token: Any) -> None:
    refused = lasting_api.put(PATH, json={"token": token})
    assert (refused.status_code, refused.json()["param"]) == (422, "token")
    assert not isinstance(token, str) or not token or token not in refused.text
    assert lasting_api.get(PATH).json()["used"] is None


def test_the_command_line_takes_it_from_the_environment(
    here: RunHere, live_api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "without a token" in here("hub-token", "show").out
    monkeypatch.delenv("HF_TOKEN", raising=False)
    unset = here("hub-token", "set")
    assert unset.code == 2 and "HF_TOKEN" in unset.err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = here("hub-token", "set")
    assert "the team's own token" in said.out and TOKEN not in said.out + said.err
    assert live_api.get(PATH).json()["used"] == "team"
    assert "without a token" in here("hub-token", "remove").out


def test_the_portal_sets_it_and_never_sends_it_back(live_api: httpx.Client, admin_key: str) -> None:
    with closing(Browserless(live_api, admin_key)) as browserless:
        assert "Private or gated models on the hub cannot be pruned" in browserless.http.get("/portal/team").text
        refused = browserless.post("/portal/team", "/portal/team/hub-token", {"token": "two words"})
        assert refused.status_code == 422 and "holds spaces" in refused.text and "two words" not in refused.text
        assert browserless.post("/portal/team", "/portal/team/hub-token", {"token": TOKEN}).status_code == 303
        page = browserless.http.get("/portal/team").text
        assert "own, set" in page and TOKEN not in page
        browserless.post("/portal/team", "/portal/team/hub-token/remove", {})
    assert live_api.get(PATH).json()["used"] is None
