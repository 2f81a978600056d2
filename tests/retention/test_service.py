"""Policies over REST, tried and applied, on real rows and files. What it costs grows with what goes, and no team keeps
another waiting.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import new_id, transaction
from core.service.duties.isolation import MOST_FAILURES
from core.service.duties.tables import RowFailureRow
from core.service.jobs.tables import ArtifactFileRow, JobReportRow, JobRow
from core.service.retention import service
from core.service.retention.schemas import KeepTagged, RetentionPolicy
from core.service.retention.service import apply_retention
from core.service.retention.tables import ArtifactReadRow, ArtifactRow, RetentionPolicyRow
from core.service.teams.tables import TeamRow
from core.settings import Settings
from core.storage import Store, artifact_prefix
from tests.job_rows import job_row

Sessions = sessionmaker[Session]
Ended = Callable[..., str]
FILES = {"model.safetensors": b"0123456789" * 10, "secateur.json": b"{}"}
BYTES = 102


@pytest.fixture
def ended(sessions: Sessions, store: Store, team: str, tmp_path: Path) -> Ended:
    """Adds a job that ended so many days ago, with an artifact of `FILES`; its id."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)

    def add(days: float, *, of: str = team, status: str = "succeeded", ratio: float = 2.0, **labels: str) -> str:
        job_id = new_id("job")
        body = {"calibration": None, "evaluation": {"datasets": []}, "recovery": None}
        row = job_row(
            of,
            id=job_id,
            attempt=1,
            status=status,
            body=body,
            sources={},
            model="oak",
            method="wanda",
            labels=labels,
            metrics={"perplexity": {"articles": {"ratio": ratio}}},
            finished_at=func.now() - text(f"interval '{days} days'"),
        )
        stored = store.publish(folder, artifact_prefix(job_id, 1))
        with transaction(sessions) as session:
            session.add(row)
            session.flush()
            session.add(JobReportRow(job_id=job_id, attempt=1, report={}))
            session.add_all(
                ArtifactFileRow(job_id=job_id, attempt=1, path=file.path, bytes=file.bytes, sha256=file.sha256)
                for file in stored
            )
            session.execute(update(TeamRow).where(TeamRow.id == of).values(stored_bytes=TeamRow.stored_bytes + BYTES))
        return job_id

    return add


def left(sessions: Sessions) -> set[str]:
    with transaction(sessions) as session:
        return set(session.scalars(select(ArtifactFileRow.job_id)))


def test_without_a_policy_nothing_is_removed(
    api: TestClient, sessions: Sessions, settings: Settings, ended: Ended
) -> None:
    old = ended(4000)
    shown = {"object": "retention", "policy": None, "suspended": None, "updated_at": None}
    assert api.get("/v1/team/retention").json() == shown
    assert apply_retention(sessions, settings) is None and left(sessions) == {old}


def test_the_preview_says_what_goes_and_why_the_rest_stays_and_then_just_that_happens(
    api: TestClient, sessions: Sessions, settings: Settings, ended: Ended, other_team: str
) -> None:
    policy = {"keep_days": 30, "keep_tagged": {"metadata": {"keep": "true", "line": "main"}}}
    goes = [ended(90), ended(60, keep="true"), ended(50, status="failed"), ended(40, keep="false", line="main")]
    tagged, young = ended(70, keep="true", line="main", commit="a"), ended(29)
    others = ended(90, of=other_team)
    tried = api.post("/v1/team/retention/preview", json=policy).raise_for_status().json()
    assert [(each["job_id"], each["goes"]) for each in tried["artifacts"]] == [
        *((job, True) for job in goes),
        *((job, False) for job in (tagged, young)),
    ]
    assert [each["kept_because"] for each in tried["artifacts"][4:]] == [["tagged"], ["age"]]
    assert (tried["goes"], tried["stays"], tried["bytes_freed"]) == (4, 2, 4 * BYTES)
    assert left(sessions) == {*goes, tagged, young, others}, "it was only tried"
    set_to = api.put("/v1/team/retention", json=policy).raise_for_status().json()
    assert set_to["policy"] == policy
    before = api.get("/v1/team").json()["usage"]["stored_bytes"]
    assert apply_retention(sessions, settings) == 4
    assert left(sessions) == {tagged, young, others}
    assert before - api.get("/v1/team").json()["usage"]["stored_bytes"] == 4 * BYTES
    assert {path.name for path in settings.store_root.glob("job_*")} == {tagged, young, others}
    assert apply_retention(sessions, settings) is None
    with transaction(sessions) as session:
        assert set(session.scalars(select(JobRow.id))) >= {*goes}, "the jobs stay"
    entries = api.get("/v1/audit", params={"action": "artifact.delete"}).json()["data"]
    assert {(each["actor"], each["object_id"]) for each in entries} == {("retention", job) for job in goes}


def test_a_stored_policy_with_a_rule_that_has_left_removes_nothing_until_a_new_one_is_set(
    api: TestClient, sessions: Sessions, settings: Settings, ended: Ended, team: str
) -> None:
    old = ended(90)
    with transaction(sessions) as session:
        session.add(RetentionPolicyRow(team_id=team, policy={"keep_days": 30, "keep_last": 2}))
    for _ in range(MOST_FAILURES):
        with transaction(sessions) as session:
            session.execute(update(RowFailureRow).values(retry_at=func.now()))
        assert apply_retention(sessions, settings) is None
    assert left(sessions) == {old}
    assert "the rule keep_last, which has left: nothing is removed" in api.get("/v1/team/retention").json()["suspended"]
    api.put("/v1/team/retention", json={"keep_days": 30}).raise_for_status()
    assert apply_retention(sessions, settings) == 1 and left(sessions) == set()


def test_the_row_of_an_artifact_follows_its_job_and_its_files(sessions: Sessions, ended: Ended) -> None:
    job_id = ended(1)

    def row() -> tuple[int, int] | None:
        with transaction(sessions) as session:
            columns = select(ArtifactRow.files, ArtifactRow.bytes).where(ArtifactRow.job_id == job_id)
            found = session.execute(columns).one_or_none()
            return None if found is None else (found.files, found.bytes)

    def change(**values: object) -> None:
        with transaction(sessions) as session:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(**values))

    assert row() == (2, BYTES)
    change(status="queued", finished_at=None)
    assert row() is None, "it is tried again"
    change(status="failed", finished_at=func.now())
    assert row() == (2, BYTES)
    for path, left_over in (("secateur.json", (1, BYTES - 2)), ("model.safetensors", None)):
        with transaction(sessions) as session:
            session.execute(delete(ArtifactFileRow).where(ArtifactFileRow.path == path))
        assert row() == left_over


def test_what_is_in_use_stays(
    api: TestClient, sessions: Sessions, settings: Settings, ended: Ended, team: str, job_body: dict[str, Any]
) -> None:
    pruned_further, teacher, published, downloaded, free = (ended(90) for _ in range(5))
    users = {}
    for name, changed in (
        ("model", {"model": f"job:{pruned_further}"}),
        ("teacher", {"body": {"recovery": {"teacher": f"job:{teacher}"}}}),
    ):
        users[name] = api.post("/v1/jobs", json=job_body).raise_for_status().json()["id"]
        with transaction(sessions) as session:
            session.execute(update(JobRow).where(JobRow.id == users[name]).values(**changed))
    asked = {"to": "hub:acme/pruned", "token": "hf_x"}
    publication = api.post(f"/v1/jobs/{published}/publish", json=asked).raise_for_status().json()["id"]
    assert api.get(f"/v1/jobs/{downloaded}/artifacts/model.safetensors").content == FILES["model.safetensors"]
    policy = {"keep_days": 30}
    tried = api.post("/v1/team/retention/preview", json=policy).json()
    told = {each["job_id"]: (each["kept_because"], each["used_by"]) for each in tried["artifacts"]}
    assert told == {
        pruned_further: (["in_use"], f"job {users['model']!r}, which is not over"),
        teacher: (["in_use"], f"job {users['teacher']!r}, which is not over"),
        published: (["in_use"], f"publication {publication!r}, which is not over"),
        downloaded: (["read"], None),
        free: ([], None),
    }
    api.put("/v1/team/retention", json=policy).raise_for_status()
    assert apply_retention(sessions, settings) == 1
    assert left(sessions) == {pruned_further, teacher, published, downloaded}
    api.post(f"/v1/publications/{publication}/cancel").raise_for_status()
    with transaction(sessions) as session:
        session.execute(update(JobRow).where(JobRow.id.in_(users.values())).values(status="cancelled"))
        session.execute(update(ArtifactReadRow).values(read_at=text("now() - interval '61 minutes'")))
    assert apply_retention(sessions, settings) == 4 and left(sessions) == set()


def test_a_use_that_begins_between_the_look_and_the_removal_keeps_it(
    api: TestClient, sessions: Sessions, settings: Settings, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ended(90)
    api.put("/v1/team/retention", json={"keep_days": 30}).raise_for_status()
    look = service._look_at_some

    def then_published(*arguments: Any) -> Any:
        found = look(*arguments)
        asked = {"to": "hub:acme/pruned", "token": "hf_x"}
        api.post(f"/v1/jobs/{job}/publish", json=asked).raise_for_status()
        return found

    monkeypatch.setattr(service, "_look_at_some", then_published)
    assert apply_retention(sessions, settings) is None and left(sessions) == {job}


POLICY = RetentionPolicy(keep_days=30, keep_tagged=KeepTagged(metadata={"keep": "yes"}))


def add_many(sessions: Sessions, team: str, count: int) -> None:
    """Add so many artifacts of a byte each, of jobs that ended forty days ago, a second after one another."""
    with transaction(sessions) as session:
        for number in range(count):
            ended = func.now() - text(f"interval '40 days' + interval '{number} seconds'")
            row = job_row(team, status="succeeded", attempt=1, body={"recovery": None}, finished_at=ended)
            session.add(row)
            session.flush()
            session.add(ArtifactFileRow(job_id=row.id, attempt=1, path="model.safetensors", bytes=1, sha256=""))


def count_left(sessions: Sessions, team: str) -> int:
    with transaction(sessions) as session:
        return session.scalar(select(func.count()).where(ArtifactRow.team_id == team)) or 0


def set_policy(sessions: Sessions, team: str, policy: RetentionPolicy = POLICY) -> None:
    with transaction(sessions) as session:
        service.set_retention(session, team, policy)


def test_teams_take_turns_and_a_turn_is_bounded(
    sessions: Sessions, settings: Settings, team: str, other_team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOKED_AT", 2)
    monkeypatch.setattr(service, "MOST_REMOVED", 4)
    for each, count in ((team, 9), (other_team, 3)):
        add_many(sessions, each, count)
        set_policy(sessions, each)
    turns = [(apply_retention(sessions, settings), count_left(sessions, team), count_left(sessions, other_team))]
    turns += [(apply_retention(sessions, settings), count_left(sessions, team), 0) for _ in range(3)]
    assert turns == [(7, 5, 0), (4, 1, 0), (1, 0, 0), (None, 0, 0)]


def test_a_team_whose_policy_cannot_be_read_keeps_no_other_waiting(
    sessions: Sessions, settings: Settings, team: str, other_team: str
) -> None:
    for each in (team, other_team):
        add_many(sessions, each, 1)
        set_policy(sessions, each)
    with transaction(sessions) as session:
        broken = update(RetentionPolicyRow).where(RetentionPolicyRow.team_id == team)
        session.execute(broken.values(policy={"keep_days": "as long as it takes"}))
    assert apply_retention(sessions, settings) == 1
    assert (count_left(sessions, team), count_left(sessions, other_team)) == (1, 0)
