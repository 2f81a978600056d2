"""Rules of a retention policy as conditions that PostgreSQL evaluates, for any number of artifacts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, and_, not_
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from core.service.retention.in_use import is_in_use
from core.service.retention.reads import is_being_read
from core.service.retention.schemas import RetentionPolicy
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
    """Return the artifacts that `looked_at` selects, with the conditions under which the team's policy keeps them."""
    artifact = looked_at.subquery("looked_at")
    rules: dict[KeptBecause, ColumnElement[bool]] = {"age": artifact.c.finished_at > ended_before(policy, now)}
    if policy.keep_tagged is not None:
        rules["tagged"] = artifact.c.metadata.contains(policy.keep_tagged.metadata)
    uses: dict[KeptBecause, ColumnElement[bool]] = {
        "in_use": is_in_use(team_id, artifact.c.job_id),
        "read": is_being_read(artifact.c.job_id),
    }
    return ConditionedArtifacts(artifact, artifact.c, rules, uses)
