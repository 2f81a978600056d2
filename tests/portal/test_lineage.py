"""Lineage on the pages of jobs and models: what made them, and what was made of them."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.settings import Settings
from core.storage import Store
from tests.conftest import bearer
from tests.portal.browserless import Browserless
from tests.signed_artifact import Signed, upload, write_key


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"signing_key": write_key(tmp_path / "signing-key")})


@pytest.fixture
def signed(live_api: httpx.Client, sessions: sessionmaker[Session], store: Store, tmp_path: Path) -> Signed:
    return Signed(live_api, sessions, store, tmp_path)


def way(page: str) -> str:
    """The section of the lineage."""
    return page.partition('<ol class="lineage">')[2].partition("</section>")[0]


def in_order(text: str, *parts: str) -> bool:
    places = [text.find(part) for part in parts]
    return places == sorted(places) and places[0] >= 0


def test_another_team_sees_the_statement_that_it_brought_and_nothing_of_the_job(
    live_api: httpx.Client, signed: Signed, job_body: dict[str, Any], settings: Settings, other_team_key: str
) -> None:
    job, folder = signed.artifact(job_body, settings.signing_key)
    live_api.headers.update(bearer(other_team_key))
    theirs = upload(live_api, folder, "theirs")
    person = Browserless(live_api, other_team_key)
    shown = way(person.main(f"/portal/models/{theirs['id']}"))
    person.close()
    assert in_order(shown, job_body["model"], "not a job of your team", "this model")
    assert job not in shown and "submitted by" not in shown and "/portal/jobs/" not in shown
