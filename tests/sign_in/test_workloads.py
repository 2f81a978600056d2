"""Pipelines show their identity token in place of a stored key: what a rule admits, and what is refused."""

import base64
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.service.teams.openid.tokens import KEYS_SECONDS, SigningKeys
from tests.client.command_line import run_here
from tests.conftest import bearer
from tests.portal.browserless import Browserless
from tests.sign_in.conftest import Portal, StartPortal
from tests.sign_in.stand_in import StandIn, new_key
from tests.worker.conftest import eventually

OTHER_KEY = new_key("other")
STEP = Path(__file__).parents[2] / "examples" / "pipelines" / "get_key.py"
OpenBrowser = Callable[[str], Browserless]
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


@pytest.fixture
def open_browser(pipeline: Pipeline) -> Iterator[OpenBrowser]:
    """Opens browsers without scripts, each signed in with a key."""
    with ExitStack() as opened:
        yield lambda key: opened.enter_context(closing(Browserless(pipeline.api, key)))


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


def test_commands_make_a_rule_and_end_it_with_its_keys(
    pipeline: Pipeline, admin_key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secateur = run_here(pipeline.portal.url, admin_key, monkeypatch, capsys)
    assert "There are no rules" in secateur("workload-rules", "list").out
    claims = [word for name, value in RULE.items() for word in ("--claim", f"{name}={value}")]
    create = ["workload-rules", "create", "--issuer", pipeline.issuer.issuer, "--name", "oak"]
    made = secateur(*create, *claims)
    assert made.out.strip() == f"secateur:{pipeline.team}" and "oak, member" in made.err
    listed = secateur("workload-rules", "list").out
    assert "repository_id=74" in listed and made.out.strip() in listed
    key = pipeline.exchange(pipeline.issuer.sign(pipeline.claims())).json()["key"]
    rule = secateur("workload-rules", "list", "--json").json[0]["id"]
    assert "revoked" in secateur("workload-rules", "delete", rule).out
    assert httpx.get(f"{pipeline.portal.url}/v1/team", headers=bearer(key)).status_code == 401
    assert secateur("workload-rules", "delete", rule).code == 2
    for claim, reason in (("repository_id", "write KEY=VALUE"), ("repository_id=74", "ids that nobody else can get")):
        refused = secateur(*create, "--claim", claim)
        assert refused.code == 2 and reason in refused.err
    assert "Nobody has signed in" in secateur("people").out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"claims": "repository_id"}, "write NAME=VALUE, one a line"),
        ({"claims": "repository_id=1\nrepository_id=2"}, "is given twice"),
        ({"claims": "sub=repo:acme/oak"}, "ids that nobody else can get"),
        ({"role": "admin"}, "role"),
        ({"issuer": "https://elsewhere.example"}, "the operator admits no tokens"),
    ],
)
def test_the_form_refuses_what_the_api_refuses(
    pipeline: Pipeline, open_browser: OpenBrowser, admin_key: str, changes: dict[str, str], reason: str
) -> None:
    browser = open_browser(admin_key)
    claims = "\n".join(f"{name}={value}" for name, value in RULE.items())
    fields = {"name": "oak", "issuer": pipeline.issuer.issuer, "claims": claims, "role": "member"}
    page = "/portal/team/pipelines"
    refused = browser.post(page, page, {**fields, **changes})
    assert refused.status_code == 422 and reason in refused.text
    assert changes.get("claims", "repository_owner_id=65") in refused.text, "what was typed is lost"
    assert browser.post(page, page, fields).status_code == 303 and "repository_owner_id=65" in browser.main(page)


def test_only_admins_see_the_people_and_the_pipelines_of_a_team(
    pipeline: Pipeline, open_browser: OpenBrowser, viewer_key: str, member_key: str, other_team_key: str
) -> None:
    rule = pipeline.rule().raise_for_status().json()["id"]
    for key in (viewer_key, member_key):
        browser = open_browser(key)
        for path in ("people", "pipelines"):
            assert browser.http.get(f"/portal/team/{path}").status_code == 403
        for path in ("", f"/{rule}/delete"):
            assert browser.post("/portal/team", f"/portal/team/pipelines{path}", {"name": "mine"}).status_code == 403
    other = open_browser(other_team_key)
    assert rule not in other.main("/portal/team/pipelines")
    assert other.post("/portal/team", f"/portal/team/pipelines/{rule}/delete", {}).status_code == 404


def test_tokens_of_gitlab_are_admitted_by_its_ids(pipeline: Pipeline) -> None:
    rule = {"project_id": "12", "namespace_id": "3", "environment": "production"}
    pipeline.rule(rule, role="viewer").raise_for_status()
    gitlab = {**rule, "project_path": "acme/oak", "job_id": "99", "pipeline_source": "push", "event_name": None}
    unlike = dict.fromkeys(("repository_id", "repository_owner_id", "repository", "run_id"))
    made = pipeline.exchange(pipeline.issuer.sign(pipeline.claims(**{**gitlab, **unlike})))
    assert made.status_code == 201 and made.json()["name"] == "acme/oak 99" and made.json()["role"] == "viewer"
    assert "no rule" in pipeline.refused(**{**gitlab, **unlike, "environment": "staging"})
    assert "pull and merge requests" in pipeline.refused(
        **{**gitlab, **unlike, "pipeline_source": "merge_request_event"}
    )
    assert "a fork's could be" in pipeline.refused(**{**gitlab, **unlike, "ref_path": "refs/merge-requests/4/head"})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event_name": "pull_request", "ref": "refs/pull/7/merge", "actor_id": "99"}, "pull and merge requests"),
        ({"repository_id": "913", "repository_owner_id": "99", "repository": "stranger/oak"}, "no rule of this team"),
        ({"repository_owner_id": "99"}, "no rule of this team"),
    ],
    ids=["its pull request", "its own push", "the repository after it got another owner"],
)
def test_a_fork_gets_no_key_by_a_rule_for_every_branch(
    pipeline: Pipeline, changes: dict[str, str], reason: str
) -> None:
    pipeline.rule({"repository_id": "74", "repository_owner_id": "65"}).raise_for_status()
    pushed = pipeline.exchange(pipeline.issuer.sign(pipeline.claims(event_name="push", ref="refs/heads/leaf")))
    assert pushed.status_code == 201, pushed.text
    assert reason in pipeline.refused(**{"event_name": "push", "ref": "refs/heads/leaf", **changes})


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
    unset = subprocess.run([sys.executable, STEP], env={}, capture_output=True, text=True)
    assert unset.returncode == 1 and "is not set" in unset.stderr


def test_tokens_that_prove_nothing_are_refused_with_the_reason(
    pipeline: Pipeline, other_team: str, other_team_key: str
) -> None:
    pipeline.rule().raise_for_status()
    now = int(time.time())
    reasons = {
        "no rule of this team admits": {"repository_id": "75"},
        "no rule of this team": {"repository_id": None},
        "no rule of": {"ref": "refs/heads/other"},
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
    tokens = {
        deep(): "no signed token",
        f"{encoded(b'{}')}.{deep_claims}.AA": "no signed token",
        f"{deep_header}.{plain}.AA": "no signed token",
    }
    for issuers in ([], [stand_in.issuer]):
        portal = start_portal(workload_issuers=issuers, requests_per_minute=3, requests_burst=100)
        answers = [httpx.post(f"{portal.url}/v1/workload-keys", json={"token": each}) for each in tokens]
        for answer, reason in zip(answers, tokens.values(), strict=True):
            assert answer.status_code == 422
            assert (reason if issuers else "admits no tokens of pipelines") in answer.json()["detail"]
        statuses = {httpx.post(f"{portal.url}/v1/workload-keys", json={"token": deep()}).status_code for _ in range(20)}
        assert 429 in statuses <= {422, 429}
    assert "Traceback" not in caplog.text and len(max(caplog.messages, key=len)) < 1000


def test_an_issuer_that_hangs_holds_up_few_requests(start_portal: StartPortal, stand_in: StandIn) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        issuer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        portal = start_portal(workload_issuers=[issuer, stand_in.issuer])
        token = stand_in.sign(stand_in.claims(iss=issuer))

        def ask() -> httpx.Response:
            return httpx.post(f"{portal.url}/v1/workload-keys", json={"token": token}, timeout=60)

        with ThreadPoolExecutor(60) as pool:
            asked = [pool.submit(ask) for _ in range(60)]
            other = stand_in.sign(stand_in.claims(aud="nobody", jti="1"))
            answer = httpx.post(f"{portal.url}/v1/workload-keys", json={"token": other}, timeout=60)
            answers = [each.result() for each in asked]
    assert {each.status_code for each in answers} == {503} and all(each.headers["Retry-After"] for each in answers)
    assert any("many requests wait" in each.text for each in answers), "all of them were held up"
    assert answer.status_code == 422 or "many requests wait" in answer.text


def test_keys_are_read_by_one_and_ahead_of_their_end() -> None:
    clock, may_end, reads = [0.0], threading.Event(), []
    may_end.set()

    def fetch() -> dict[str, Any]:
        reads.append(clock[0])
        assert may_end.wait(60)
        return {"keys": [OTHER_KEY.as_dict(private=False)]}

    keys = SigningKeys(fetch, clock=lambda: clock[0])
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(keys.find, "other", "RS256") for _ in range(4)]
        assert all(each.result().kid == "other" for each in found)
    assert reads == [0.0]
    may_end.clear()
    clock[0] = KEYS_SECONDS - 1
    for _ in range(3):  # the issuer hangs, and what it said is valid still
        assert keys.find("other", "RS256").kid == "other"
    may_end.set()
    assert eventually(lambda: reads == [0.0, KEYS_SECONDS - 1])
