"""Rules of a retention policy as pure functions of the facts: the reference that the rules in SQL are compared with."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.service.retention.schemas import KeepBest, RetentionPolicy
from secateur_wire.metrics import Metrics
from secateur_wire.retention import Figure, KeptBecause


@dataclass(frozen=True)
class Artifact:
    """An artifact of a job that is over. `metrics` and `labels` are the job's."""

    job_id: str
    model: str
    method: str
    status: str
    finished_at: datetime
    metrics: Metrics
    labels: Mapping[str, Any]
    files: int
    bytes: int


def kept_by_rules(
    artifacts: Sequence[Artifact], policy: RetentionPolicy, now: datetime
) -> dict[str, list[KeptBecause]]:
    """Return the rules that keep each job's artifact, none where no rule does. `artifacts` are all of a team."""
    reasons: dict[str, list[KeptBecause]] = {each.job_id: [] for each in artifacts}
    before = now - timedelta(days=policy.keep_days)
    for each in artifacts:
        if each.finished_at > before:
            reasons[each.job_id].append("age")
    if policy.keep_last is not None:
        for each in sorted(artifacts, key=_newest_first)[: policy.keep_last]:
            reasons[each.job_id].append("last")
    if policy.keep_best is not None:
        for each in _best(artifacts, policy.keep_best):
            reasons[each.job_id].append("best")
    if policy.keep_tagged is not None:
        wanted = policy.keep_tagged.metadata.items()
        for each in artifacts:
            if wanted <= each.labels.items():
                reasons[each.job_id].append("tagged")
    return reasons


def _newest_first(artifact: Artifact) -> tuple[float, str]:
    return (-artifact.finished_at.timestamp(), artifact.job_id)


def _best(artifacts: Sequence[Artifact], rule: KeepBest) -> list[Artifact]:
    """Return the best artifacts of each group; of equals the newer."""
    groups: defaultdict[str, list[tuple[float, Artifact]]] = defaultdict(list)
    for each in artifacts:
        value = figure(each, rule.by)
        if value is not None and each.status == "succeeded":
            groups[{"model": each.model, "method": each.method, "team": ""}[rule.group]].append((value, each))
    return [
        each
        for group in groups.values()
        for _, each in sorted(group, key=lambda pair: (pair[0], _newest_first(pair[1])))[: rule.count]
    ]


def figure(artifact: Artifact, by: Figure) -> float | None:
    """Return the figure that artifacts are ranked by, smaller being better; None where the job has no such figure."""
    metrics = artifact.metrics
    match by:
        case "perplexity_ratio":
            numbers = [float(each.ratio) for each in metrics.perplexity.values() if each.ratio is not None]
            return sum(numbers) / len(numbers) if numbers else None
        case "bytes":
            return float(artifact.bytes)
        case "parameters":
            return _number(None if metrics.parameters is None else metrics.parameters.nonzero)
        case "latency":
            return _number(None if metrics.latency is None else metrics.latency.pruned_ms)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
