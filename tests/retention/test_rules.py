"""What a policy keeps, given the facts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import builds, integers, just, lists, none, one_of, sampled_from
from pydantic import ValidationError

from core.service.retention.schemas import KeepBest, KeepTagged, RetentionPolicy
from secateur_wire.metrics import Metrics
from tests.retention.reference import Artifact, kept_by_rules

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def artifact(name: str, days: float, *, model: str = "oak", status: str = "succeeded", **metrics: Any) -> Artifact:
    labels = metrics.pop("labels", {})
    size = metrics.pop("bytes", 100)
    return Artifact(
        job_id=name,
        model=model,
        method="wanda",
        status=status,
        finished_at=NOW - timedelta(days=days),
        metrics=Metrics.model_validate(metrics),
        labels=labels,
        files=1,
        bytes=size,
    )


def kept(artifacts: list[Artifact], **policy: Any) -> dict[str, list[str]]:
    found = kept_by_rules(artifacts, RetentionPolicy(**{"keep_days": 30, **policy}), NOW)
    return {name: list(reasons) for name, reasons in found.items() if reasons}


def ratio(value: float) -> dict[str, Any]:
    return {"perplexity": {"articles": {"ratio": value}}}


def test_only_age_counts_where_nothing_else_is_said() -> None:
    assert kept([artifact("old", 30.1), artifact("young", 29.9)]) == {"young": ["age"]}


def test_the_last_are_those_that_ended_last() -> None:
    artifacts = [artifact("a", 50), artifact("b", 40), artifact("c", 60)]
    assert kept(artifacts, keep_last=2) == {"a": ["last"], "b": ["last"]}


def test_the_best_of_each_model_by_the_ratio() -> None:
    artifacts = [
        artifact("oak, good", 40, **ratio(1.1)),
        artifact("oak, bad", 40, **ratio(2.0)),
        artifact("ash, bad", 40, model="ash", **ratio(3.0)),
        artifact("failed", 40, status="failed", **ratio(1.0)),
        artifact("unmeasured", 40),
    ]
    best = {"count": 1, "by": "perplexity_ratio"}
    assert set(kept(artifacts, keep_best=best)) == {"oak, good", "ash, bad"}
    assert set(kept(artifacts, keep_best={**best, "group": "team"})) == {"oak, good"}


def test_a_ratio_is_the_mean_over_the_sets_and_of_equals_the_newer_stays() -> None:
    both = {"perplexity": {"a": {"ratio": 1.0}, "b": {"ratio": 3.0}, "c": {"ratio": None}}}
    artifacts = [artifact("mean 2", 40, **both), artifact("1.9", 40, **ratio(1.9))]
    assert set(kept(artifacts, keep_best={"count": 1, "by": "perplexity_ratio"})) == {"1.9"}
    equals = [artifact("older", 50, **ratio(1.0)), artifact("newer", 40, **ratio(1.0))]
    assert set(kept(equals, keep_best={"count": 1, "by": "perplexity_ratio"})) == {"newer"}


@pytest.mark.parametrize(
    ("by", "small", "large"),
    [
        ("bytes", {"bytes": 10}, {"bytes": 20}),
        ("parameters", {"parameters": {"nonzero": 10}}, {"parameters": {"nonzero": 20}}),
        ("latency", {"latency": {"pruned_ms": 1.5}}, {"latency": {"pruned_ms": 2.5}}),
    ],
)
def test_other_figures(by: str, small: dict[str, Any], large: dict[str, Any]) -> None:
    artifacts = [artifact("small", 40, **small), artifact("large", 40, **large)]
    assert kept(artifacts, keep_best={"count": 1, "by": by}) == {"small": ["best"]}


def test_tagged_means_every_value_and_no_other() -> None:
    artifacts = [
        artifact("both", 40, labels={"keep": "true", "line": "main", "commit": "a"}),
        artifact("one", 40, labels={"keep": "true"}),
        artifact("another value", 40, labels={"keep": "false", "line": "main"}),
    ]
    assert kept(artifacts, keep_tagged={"metadata": {"keep": "true", "line": "main"}}) == {"both": ["tagged"]}


_ARTIFACTS = lists(builds(artifact, integers(0, 50).map(str), integers(0, 60)), unique_by=lambda each: each.job_id)
_POLICIES = builds(
    RetentionPolicy,
    keep_days=integers(1, 60),
    keep_last=one_of(none(), integers(1, 5)),
    keep_best=one_of(none(), builds(KeepBest, count=integers(1, 3), by=just("bytes"), group=sampled_from(["team"]))),
    keep_tagged=one_of(none(), just(KeepTagged(metadata={"keep": "true"}))),
)


@given(_ARTIFACTS, _POLICIES)
def test_a_further_rule_never_takes_what_was_kept(artifacts: list[Artifact], policy: RetentionPolicy) -> None:
    alone = kept_by_rules(artifacts, RetentionPolicy(keep_days=policy.keep_days), NOW)
    together = kept_by_rules(artifacts, policy, NOW)
    for each in artifacts:
        is_young = each.finished_at > NOW - timedelta(days=policy.keep_days)
        assert bool(alone[each.job_id]) == is_young
        assert set(alone[each.job_id]) <= set(together[each.job_id])
    assert sum("last" in reasons for reasons in together.values()) == min(policy.keep_last or 0, len(artifacts))


@pytest.mark.parametrize("wrong", [{}, {"keep_days": 0}, {"keep_days": 3, "keep_last": 0}, {"keep_tagged": {}}])
def test_a_policy_says_how_long_and_nothing_by_accident(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetentionPolicy.model_validate(wrong)
