"""Verdicts of PostgreSQL: those of the pure functions, for whatever artifacts and policy."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as budget
from hypothesis.strategies import booleans, builds, dictionaries, integers, just, lists, none, one_of, sampled_from
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import new_id, transaction
from core.service.jobs.tables import ArtifactFileRow, JobRow
from core.service.retention import service
from core.service.retention.schemas import KeepBest, KeepTagged, RetentionPolicy
from core.service.retention.tables import ArtifactReadRow, ArtifactRow
from core.service.teams.bootstrap import create_team
from core.settings import Settings
from secateur_wire.metrics import Metrics
from tests.retention.many import COMMON, add_artifacts
from tests.retention.reference import Artifact, kept_by_rules

Sessions = sessionmaker[Session]

_figures = one_of(none(), sampled_from([0.5, 1.0, 2.0, 0.1, 0.2, 0.3, 1e9]))
_metrics = builds(
    lambda ratios, nonzero, latency: Metrics.model_validate(
        {
            "perplexity": {name: {"ratio": ratio, "dense": 25.0} for name, ratio in ratios.items()},
            "parameters": {"nonzero": nonzero},
            "latency": {"pruned_ms": latency},
        }
    ),
    dictionaries(sampled_from(["a", "b", "articles"]), _figures),
    one_of(none(), integers(0, 3)),
    _figures,
)
_artifacts = builds(
    lambda days, **given: Artifact(
        job_id=new_id("job"), finished_at=datetime.now(UTC).replace(microsecond=0) - timedelta(days=days), **given
    ),
    days=sampled_from([0.5, 3.5, 20.5, 30.5, 30.5, 50.5]),
    model=sampled_from(["oak", "ash"]),
    method=sampled_from(["wanda", "obd"]),
    status=sampled_from(["succeeded", "succeeded", "succeeded", "failed", "cancelled"]),
    metrics=one_of(just(Metrics()), _metrics),
    labels=dictionaries(sampled_from(["keep", "line"]), sampled_from(["yes", "main"])),
    files=integers(1, 2),
    bytes=sampled_from([2, 4, 100]),
)
_policies = builds(
    RetentionPolicy,
    keep_days=sampled_from([2, 10, 40]),
    keep_last=one_of(none(), integers(1, 8)),
    keep_best=one_of(
        none(),
        builds(
            KeepBest,
            count=integers(1, 3),
            by=sampled_from(["perplexity_ratio", "bytes", "parameters", "latency"]),
            group=sampled_from(["model", "method", "team"]),
        ),
    ),
    keep_tagged=one_of(
        none(), sampled_from([{"keep": "yes"}, {"keep": "yes", "line": "main"}]).map(lambda it: KeepTagged(metadata=it))
    ),
)


@budget(
    max_examples=20, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(artifacts=lists(_artifacts, max_size=12), policy=_policies, used=lists(booleans(), min_size=12, max_size=12))
def test_the_verdicts_are_those_of_the_reference(
    sessions: Sessions, settings: Settings, artifacts: list[Artifact], policy: RetentionPolicy, used: list[bool]
) -> None:
    ids = [each.job_id for each in artifacts]
    pruned_further = {job_id for job_id, is_used in zip(ids[::2], used, strict=False) if is_used}
    downloaded = {job_id for job_id, is_used in zip(ids[::3], used[6:], strict=False) if is_used}
    with transaction(sessions) as session:
        team = create_team(session, new_id("team"))
    add_artifacts(sessions, team, artifacts)
    with transaction(sessions) as session:
        for job_id in pruned_further:
            values = COMMON | {"model": f"job:{job_id}", "method": "wanda", "status": "queued", "labels": {}}
            session.execute(insert(JobRow).values(id=new_id("job"), team_id=team, **values))
        for job_id in downloaded:
            session.execute(insert(ArtifactReadRow).values(job_id=job_id))
    expected = kept_by_rules(artifacts, policy, datetime.now(UTC))
    for job_id, reasons in expected.items():
        if not reasons:
            reasons += ["in_use"] if job_id in pruned_further else []
            reasons += ["read"] if job_id in downloaded else []
    with transaction(sessions) as session:
        tried = service.preview(session, team, policy)
        service.set_retention(session, team, policy)
    assert {each.job_id: each.kept_because for each in tried.artifacts} == expected
    goes = [each for each in artifacts if not expected[each.job_id]]
    assert (tried.goes, tried.stays) == (len(goes), len(artifacts) - len(goes)) and not tried.has_more
    assert tried.bytes_freed == sum(each.bytes for each in goes)
    order = [(not each.goes, each.finished_at, each.job_id) for each in tried.artifacts]
    assert order == sorted(order)
    service.apply_retention(sessions, settings)
    with transaction(sessions) as session:
        left = set(session.scalars(select(ArtifactRow.job_id).where(ArtifactRow.team_id == team)))
        service.set_retention(session, team, None)
    assert left == {job_id for job_id, reasons in expected.items() if reasons}


def test_the_row_of_an_artifact_follows_its_job_and_its_files(sessions: Sessions, team: str) -> None:
    job_id = new_id("job")

    def row() -> tuple[object, ...] | None:
        with transaction(sessions) as session:
            columns = (ArtifactRow.succeeded, ArtifactRow.files, ArtifactRow.bytes, ArtifactRow.perplexity_ratio)
            found = session.execute(select(*columns).where(ArtifactRow.job_id == job_id)).one_or_none()
            return None if found is None else tuple(found)

    def change(**values: object) -> None:
        with transaction(sessions) as session:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(**values))

    ended = Artifact(job_id, "oak", "wanda", "failed", datetime.now(UTC), Metrics(), {}, 2, 10)
    add_artifacts(sessions, team, [ended])
    assert row() == (False, 2, 10, None)
    change(status="queued", finished_at=None)
    assert row() is None, "it is tried again"
    foreign: dict[str, Any] = {
        "perplexity": {"a": {"ratio": "low"}, "b": {"ratio": 3.0}, "c": 7},
        "parameters": [],
        "latency": None,
    }
    change(status="succeeded", finished_at=datetime.now(UTC), metrics=foreign)
    assert row() == (True, 2, 10, 3.0), "what is no number is no figure, and stops no job from ending"
    with transaction(sessions) as session:
        session.execute(delete(ArtifactFileRow).where(ArtifactFileRow.path == "0"))
    assert row() == (True, 1, 5, 3.0)
    with transaction(sessions) as session:
        session.execute(delete(ArtifactFileRow).where(ArtifactFileRow.job_id == job_id))
    assert row() is None
