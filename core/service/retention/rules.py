"""Rules of a retention policy as conditions that PostgreSQL evaluates, for any number of artifacts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    lateral,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.orm import aliased
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from core.service.retention.in_use import is_in_use
from core.service.retention.reads import is_being_read
from core.service.retention.schemas import KeepBest, RetentionPolicy
from core.service.retention.tables import ArtifactRow
from secateur_wire.retention import KeptBecause


@dataclass(frozen=True)
class ConditionedArtifacts:
    """Artifacts, and the conditions under which they stay.

    `rows` is the FROM clause and `columns` are the columns of an artifact. `rules` has a condition for each rule of the
    policy. `uses` has a condition for each use that keeps an artifact without a rule. No condition is ever null.
    """

    rows: FromClause
    columns: ReadOnlyColumnCollection[str, Any]
    rules: Mapping[KeptBecause, ColumnElement[bool]]
    uses: Mapping[KeptBecause, ColumnElement[bool]]

    @property
    def is_due(self) -> ColumnElement[bool]:
        """Return the condition that no rule keeps the artifact."""
        return and_(*(not_(kept) for kept in self.rules.values()))

    @property
    def goes(self) -> ColumnElement[bool]:
        """Return the condition that neither a rule nor a use keeps the artifact."""
        return and_(self.is_due, *(not_(kept) for kept in self.uses.values()))


def ended_before(policy: RetentionPolicy, now: datetime) -> datetime:
    """Return the time after which a job must have ended for the policy to keep its artifact by age."""
    return now - timedelta(days=policy.keep_days)


def conditions_for(
    team_id: str, policy: RetentionPolicy, now: datetime, looked_at: Select[ArtifactRow]
) -> ConditionedArtifacts:
    """Return the artifacts that `looked_at` selects, with the conditions under which the team's policy keeps them.

    The newest and the best are chosen among all of the team's artifacts, with a sorted index. So the cost depends on
    the counts in the policy, not on the number of artifacts.
    """
    artifact = looked_at.subquery("looked_at")
    rows: FromClause = artifact
    rules: dict[KeptBecause, ColumnElement[bool]] = {"age": artifact.c.finished_at > ended_before(policy, now)}
    if policy.keep_last is not None:
        oldest = (
            select(ArtifactRow.finished_at, ArtifactRow.job_id)
            .where(ArtifactRow.team_id == team_id)
            .order_by(ArtifactRow.finished_at.desc(), ArtifactRow.job_id)
            .offset(policy.keep_last - 1)
            .limit(1)
            .cte("oldest_of_last")
        )
        rows = rows.outerjoin(oldest, true())
        rules["last"] = or_(oldest.c.job_id.is_(None), _is_newer_or_same(artifact, oldest))
    if policy.keep_best is not None:
        rows, rules["best"] = _judge_best(rows, artifact, team_id, policy.keep_best, looked_at)
    if policy.keep_tagged is not None:
        rules["tagged"] = artifact.c.metadata.contains(policy.keep_tagged.metadata)
    uses: dict[KeptBecause, ColumnElement[bool]] = {
        "in_use": is_in_use(team_id, artifact.c.job_id),
        "read": is_being_read(artifact.c.job_id),
    }
    return ConditionedArtifacts(rows, artifact.c, rules, uses)


def _judge_best(
    rows: FromClause, artifact: FromClause, team_id: str, rule: KeepBest, looked_at: Select[ArtifactRow]
) -> tuple[FromClause, ColumnElement[bool]]:
    """Return the rows joined with the last of the best of their group, and the condition to be among the best."""
    ranked = aliased(ArtifactRow, name="ranked")
    figure = getattr(ranked, rule.by)
    of_team = (ranked.team_id == team_id, ranked.succeeded, figure.is_not(None))
    order = (figure, ranked.finished_at.desc(), ranked.job_id)
    columns = (figure.label("figure"), ranked.finished_at, ranked.job_id)
    worst = select(*columns).where(*of_team).order_by(*order).offset(rule.count - 1).limit(1)
    if rule.group == "team":
        best = worst.cte("worst_of_best")
        rows = rows.outerjoin(best, true())
    else:
        group = select(looked_at.subquery("grouped").c[rule.group]).distinct().subquery("groups")
        of_group = lateral(worst.where(getattr(ranked, rule.group) == group.c[rule.group]), "of_group")
        best = select(group, of_group).join_from(group, of_group, true()).cte("worst_of_best")
        rows = rows.outerjoin(best, best.c[rule.group] == artifact.c[rule.group])
    value = artifact.c[rule.by]
    is_best = or_(
        best.c.job_id.is_(None),
        value < best.c.figure,
        and_(value == best.c.figure, _is_newer_or_same(artifact, best)),
    )
    return rows, and_(artifact.c.succeeded, value.is_not(None), is_best)


def _is_newer_or_same(artifact: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Return the condition that `other` does not come before the artifact, the newest first."""
    return or_(
        artifact.c.finished_at > other.c.finished_at,
        and_(artifact.c.finished_at == other.c.finished_at, artifact.c.job_id <= other.c.job_id),
    )
