"""Pipelines show their identity token in place of a stored key: what a rule admits, and what is refused."""

import base64
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import bearer
from tests.sign_in.conftest import Portal, StartPortal
from tests.sign_in.stand_in import StandIn, new_key

OTHER_KEY = new_key("other")
STEP = Path(__file__).parents[2] / "examples" / "pipelines" / "get_key.py"
RULE = {"repository_id": "74", "repository_owner_id": "65", "ref": "refs/heads/main"}


@dataclass
class Pipeline:
    """A pipeline at an issuer, and an admin of the team it works for."""

    portal: Portal
    issuer: StandIn
    team: str
    api: httpx.Client

    def rule(self, claims: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        body = {"name": "nightly", "issuer": self.issuer.issuer, "claims": claims or RULE, **changes}
        return self.api.post("/v1/workload-rules", json=body)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a token of GitHub's shape, with changes."""
        github = {
            **RULE,
            "aud": f"secateur:{self.team}",
            "sub": "repo:acme/oak:ref:refs/heads/main",
            "repository": "acme/oak",
            "run_id": "4711",
            "event_name": "schedule",
            "jti": f"jti-{time.monotonic_ns()}",
            "name": None,
            "email": None,
            "groups": None,
        }
        return self.issuer.claims(**{**github, **changes})

    def exchange(self, token: str) -> httpx.Response:
        return httpx.post(f"{self.portal.url}/v1/workload-keys", json={"token": token})

    def refused(self, **changes: Any) -> str:
        """Return why a token with changed claims gets no key."""
        answer = self.exchange(self.issuer.sign(self.claims(**changes)))
        assert answer.status_code == 422, answer.text
        return str(answer.json()["detail"])


@pytest.fixture
def pipeline(start_portal: StartPortal, stand_in: StandIn, team: str, admin_key: str) -> Iterator[Pipeline]:
    portal = start_portal(workload_issuers=[stand_in.issuer], workload_key_seconds=600)
    with httpx.Client(base_url=portal.url, headers=bearer(admin_key)) as api:
        yield Pipeline(portal, stand_in, team, api)


def test_a_pipeline_gets_a_key_for_a_short_time_and_the_audit_trail_names_it(pipeline: Pipeline) -> None:
    rule = pipeline.rule().raise_for_status().json()
    assert rule["audience"] == f"secateur:{pipeline.team}"
    token = pipeline.issuer.sign(pipeline.claims())
    made = pipeline.exchange(token)
    assert made.status_code == 201, made.text
    key = made.json()
    assert key["name"] == "acme/oak 4711" and key["role"] == "member" and key["expires_at"] is not None
    with httpx.Client(base_url=pipeline.portal.url, headers=bearer(key["key"])) as ci:
        assert ci.get("/v1/team").json()["id"] == pipeline.team
        assert ci.get("/v1/keys").status_code == 403
        assert "used already" in pipeline.exchange(token).json()["detail"]
        entry = pipeline.api.get("/v1/audit", params={"object_id": key["id"]}).json()["data"][0]
        assert entry["actor"] == f"workload:{rule['id']}"
        successor = pipeline.api.post(f"/v1/keys/{key['id']}/rotate", json={"grace_seconds": 60}).json()["key"]
        assert pipeline.api.delete(f"/v1/workload-rules/{rule['id']}").status_code == 204
        for outlived in (key["key"], successor):
            assert ci.get("/v1/team", headers=bearer(outlived)).status_code == 401, "a key outlives its rule"
    assert pipeline.api.get("/v1/workload-rules").json()["data"] == []
    assert "no rule of this team" in pipeline.refused()


def test_tokens_of_gitlab_are_admitted_by_its_ids(pipeline: Pipeline) -> None:
    rule = {"project_id": "12", "namespace_id": "3", "environment": "production"}
    pipeline.rule(rule, role="viewer").raise_for_status()
    gitlab = {**rule, "project_path": "acme/oak", "job_id": "99", "pipeline_source": "push", "event_name": None}
    unlike = dict.fromkeys(("repository_id", "repository_owner_id", "repository", "run_id"))
    made = pipeline.exchange(pipeline.issuer.sign(pipeline.claims(**{**gitlab, **unlike})))
    assert made.status_code == 201 and made.json()["name"] == "acme/oak 99" and made.json()["role"] == "viewer"
    assert "no rule" in pipeline.refused(**{**gitlab, **unlike, "environment": "staging"})
    merged = {**gitlab, **unlike, "pipeline_source": "merge_request_event"}
    assert "pull and merge requests" in pipeline.refused(**merged)
    assert "a fork's could be" in pipeline.refused(**{**gitlab, **unlike, "ref_path": "refs/merge-requests/4/head"})


@pytest.mark.parametrize("forge", ["github", "gitlab"])
def test_the_step_for_pipelines_prints_a_key_for_the_run(pipeline: Pipeline, forge: str) -> None:
    audience = pipeline.rule().raise_for_status().json()["audience"]
    pipeline.issuer.run_claims = pipeline.claims()
    given = {
        "github": {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{pipeline.issuer.issuer}/run-token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of the run",
            "SECATEUR_AUDIENCE": audience,
        },
        "gitlab": {"SECATEUR_TOKEN": pipeline.issuer.sign(pipeline.claims())},
    }[forge]
    environment = {"SECATEUR_URL": pipeline.portal.url, **given}
    run = subprocess.run([sys.executable, STEP], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert httpx.get(f"{pipeline.portal.url}/v1/team", headers=bearer(run.stdout.strip())).status_code == 200
    environment["SECATEUR_TOKEN"] = "no token"
    refused = subprocess.run([sys.executable, STEP], env=environment, capture_output=True, text=True)
    assert refused.returncode == 1 and "no signed token" in refused.stderr


def test_tokens_that_prove_nothing_are_refused_with_the_reason(
    pipeline: Pipeline, other_team: str, other_team_key: str
) -> None:
    pipeline.rule().raise_for_status()
    now = int(time.time())
    reasons = {
        "no rule of this team admits": {"repository_id": "75"},
        "no rule of this team": {"repository_id": None},
        "no rule of": {"ref": "refs/heads/other"},
        "rule of this team admits": {"repository_owner_id": "99"},
        "no rule": {"aud": f"secateur:{other_team}"},
        "meant for another service": {"aud": "https://github.com/acme"},
        "is meant for another service": {"aud": [f"secateur:{pipeline.team}", "sts.example.com"]},
        "pull and merge requests": {"event_name": "pull_request"},
        "requests are refused": {"event_name": "pull_request_target"},
        "a fork's could be": {"event_name": "push", "ref": "refs/pull/3/merge"},
        "has expired": {"exp": now - 90},
        "in the future": {"iat": now + 3600, "exp": now + 3700},
        "more than a day": {"exp": now + 100_000},
        "lacks the claim jti": {"jti": None},
        "the operator admits no tokens of": {"iss": "https://elsewhere.example"},
    }
    for reason, changes in reasons.items():
        assert reason in pipeline.refused(**changes), reason
    forged = {
        "does not publish": pipeline.issuer.sign(pipeline.claims(), OTHER_KEY),
        "'HS256', which is not accepted": pipeline.issuer.sign_with_secret(pipeline.claims(), "x" * 32),
        "no signed token": "abc",
    }
    for reason, token in forged.items():
        assert reason in pipeline.exchange(token).json()["detail"], reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"issuer": "https://elsewhere.example"}, "the operator admits no tokens"),
        ({"claims": {"repository": "acme/oak"}}, "ids that nobody else can get"),
        ({"claims": {"repository_id": "74"}}, "ids that nobody else can get"),
        ({"claims": {**RULE, "repository": "acme/oak"}}, "'repository' cannot be in a rule"),
        ({"claims": {**RULE, "sub": "repo:acme/*"}}, "'sub' cannot be in a rule"),
        ({"role": "admin"}, "role"),
    ],
)
def test_rules_that_names_could_take_over_are_refused(pipeline: Pipeline, changes: dict[str, Any], reason: str) -> None:
    refused = pipeline.rule(**changes)
    assert refused.status_code == 422 and reason in refused.json()["detail"], refused.text


def deep(levels: int = 11_000) -> str:
    """Return a token that takes a parser many levels down."""
    header = encoded(b'{"alg":"RS256","kid":"first"}')
    return f"{header}.{encoded(b'[' * levels + b']' * levels)[:18_000]}.AA"


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def test_deep_tokens_of_strangers_are_refused_and_counted_and_log_nothing(
    start_portal: StartPortal, stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    deep_claims = encoded(b'{"iss":"%s","a":' % stand_in.issuer.encode() + b"[" * 6000 + b"]" * 6000 + b"}")
    deep_header = encoded(b'{"alg":' + b"[" * 6000 + b"]" * 6000 + b"}")
    plain = encoded(b'{"iss":"%s"}' % stand_in.issuer.encode())
    tokens = (deep(), f"{encoded(b'{}')}.{deep_claims}.AA", f"{deep_header}.{plain}.AA")
    portal = start_portal(workload_issuers=[stand_in.issuer], requests_per_minute=3, requests_burst=100)
    for token in tokens:
        answer = httpx.post(f"{portal.url}/v1/workload-keys", json={"token": token})
        assert answer.status_code == 422 and "no signed token" in answer.json()["detail"]
    statuses = {httpx.post(f"{portal.url}/v1/workload-keys", json={"token": deep()}).status_code for _ in range(20)}
    assert 429 in statuses <= {422, 429}
    assert "Traceback" not in caplog.text and len(max(caplog.messages, key=len)) < 1000
