"""Shortened ids, as people type them, against the real service."""

from pathlib import Path

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.client.command_line import RunHere
from tests.conftest import bearer


@pytest.fixture
def jobs(live_api: httpx.Client, model: str) -> list[str]:
    """Ids of three jobs, oldest first."""
    body = {"model": model, "method": "magnitude", "sparsity": 0.5}
    return [live_api.post("/v1/jobs", json=body).raise_for_status().json()["id"] for _ in range(3)]


def beginning(job: str, *others: str) -> str:
    """Return the shortest beginning that is the job's alone."""
    return next(job[:end] for end in range(5, 31) if not any(each.startswith(job[:end]) for each in others))


def test_a_beginning_that_is_unique_and_the_newest_job_stand_for_the_id(here: RunHere, jobs: list[str]) -> None:
    short = beginning(jobs[0], *jobs[1:])
    assert len(short) < 30
    for given, meant in ((short, jobs[0]), (short.removeprefix("job_").upper(), jobs[0]), ("-", jobs[2])):
        assert here("show", given, "--json").json["id"] == meant, given
    assert here("cancel", "-").out == f"{jobs[2]} is cancelled.\n"
    assert jobs[2] in here("audit", "--object", jobs[2][:-1]).out


def test_what_is_not_unique_names_those_it_may_be(here: RunHere, jobs: list[str]) -> None:
    several = here("cancel", "job_0")
    assert several.code == 2 and several.out == ""
    assert all(job in several.err for job in jobs) and "write more" in " ".join(several.err.split())
    none = here("show", "0zzzzzzz")
    assert none.code == 2 and "begins with '0zzzzzzz'" in " ".join(none.err.split())
    assert "there is no job 'ID'" in here("show", "ID").err


def test_only_the_callers_own_things_are_found(
    here: RunHere, live_api: httpx.Client, jobs: list[str], viewer_key: str, other_team_key: str
) -> None:
    asked = {"kind": "job", "shortened": "job_0"}
    theirs = live_api.get("/v1/identifiers", params=asked, headers=bearer(other_team_key)).json()
    assert theirs == {"data": [], "has_more": False, "next_after": None}
    newest = live_api.get("/v1/identifiers", params=asked | {"shortened": "-"}, headers=bearer(viewer_key))
    assert newest.status_code == 404, "the team's jobs are not this key's"
    few = live_api.get("/v1/identifiers", params=asked | {"limit": 2}).json()
    assert [each["id"] for each in few["data"]] == jobs[:0:-1] and few["has_more"]
    keys = live_api.get("/v1/identifiers", params={"kind": "key", "shortened": "0"}, headers=bearer(viewer_key))
    assert keys.json()["data"] == [], "who may not list keys finds none"
    for faulty in ({"shortened": "job_%"}, {"kind": "sweep", "shortened": "-"}, {"shortened": "0" * 27}):
        assert live_api.get("/v1/identifiers", params=asked | faulty).json()["code"] == "invalid_request", faulty


def test_other_ids_and_models_that_are_jobs_can_be_shortened(
    here: RunHere, live_api: httpx.Client, sessions: sessionmaker[Session], store: Store, tmp_path: Path, model: str
) -> None:
    webhook = here("webhooks", "create", "https://93.184.215.14/hook", "--json").json
    assert here("webhooks", "show", webhook["id"][:-3], "--json").json["id"] == webhook["id"]
    template = {"name": "nightly", "template": {"model": model, "method": "magnitude", "sparsity": 0.5}}
    trigger = live_api.post("/v1/triggers", json=template).raise_for_status().json()["id"]
    assert here("triggers", "show", trigger[:-3], "--json").json["id"] == trigger
    assert here("triggers", "show", "nightly", "--json").json["id"] == trigger
    key = here("keys", "list", "--json").json[0]["id"]
    assert "is revoked" in here("keys", "revoke", here("keys", "create", "--json").json["id"][:-1]).out
    assert here("keys", "revoke", key[:5]).code == 2
    job = succeeded_job(live_api, sessions, store, tmp_path / "artifact", model=model)
    assert here("inspect", f"job:{job[:-1]}", "--json").json["family"] == "Llama", "its artifact was looked at"
