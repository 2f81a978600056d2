"""The checker of the chaos harness finds nothing where promises were kept, and each that was broken by hand."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from bench.chaos import checker
from bench.chaos.bystanders import JOB, add_trigger
from bench.chaos.promises import (
    Promise,
    artifacts,
    audit,
    bystanders,
    counts,
    events,
    jobs,
    leftovers,
    states,
    webhooks,
)
from tests.chaos.conftest import TEAM, Installed, broken

pytestmark = pytest.mark.timeout(300)


@pytest.mark.nightly  # each run of the harness finds nothing, that of the short seed too
def test_nothing_is_found_where_nothing_is_broken(installed: Installed) -> None:
    path = installed.journal.path
    pids = [os.getpid()]
    assert checker.check(installed.installation, path, bound_seconds=5, expected_pids=pids, run_id="none") == []


TAMPERED = [
    ("events", events.numbers_have_no_gaps, "DELETE FROM job_events WHERE job_id = DONE AND sequence = 3"),
    (
        "fencing",
        events.no_write_of_an_attempt_after_a_newer_one,
        "UPDATE job_events SET attempt = 1 WHERE job_id = TRIED_AGAIN AND data->>'stage' = 'store'",
    ),
    (
        "fencing",
        events.no_write_of_an_attempt_after_a_newer_one,
        "UPDATE job_events SET data = '{\"stage\": \"prune\"}' WHERE job_id = DONE AND data->>'stage' = 'store'",
    ),
    (
        "fencing",
        events.no_write_of_an_attempt_after_a_newer_one,
        "UPDATE job_reports SET report = report || '{\"attempt\": 1}' WHERE job_id = TRIED_AGAIN",
    ),
    (
        "fencing",
        events.no_write_of_an_attempt_after_a_newer_one,
        "UPDATE job_events SET data = '{\"status\": \"queued\"}' WHERE job_id = DONE AND data->>'status' = 'running'",
    ),
    (
        "states",
        states.only_legal_transitions,
        'UPDATE job_events SET data = \'{"status": "succeeded"}\' WHERE job_id = DONE AND sequence = 1',
    ),
    (
        "states",
        states.only_legal_transitions,
        "UPDATE jobs SET status = 'failed' WHERE id = DONE",
    ),
    ("attempts", states.attempts_are_counted, "DELETE FROM job_attempts WHERE job_id = TRIED_AGAIN AND attempt = 1"),
    ("attempts", states.attempts_are_counted, "UPDATE jobs SET attempt = 3 WHERE id = TRIED_AGAIN"),
    (
        "attempts",
        states.attempts_are_counted,
        "UPDATE job_attempts SET outcome = 'released' WHERE job_id = DONE",
    ),
    (
        "stages",
        states.stages_come_in_order,
        "UPDATE job_events SET data = '{\"stage\": \"fetch\"}' WHERE job_id = DONE AND data->>'stage' = 'store'",
    ),
    (
        "progress",
        states.progress_never_goes_back,
        "INSERT INTO job_events (job_id, sequence, type, attempt, data)"
        " VALUES (DONE, 1001, 'progress', 1, '{\"progress\": 0.8}'),"
        " (DONE, 1002, 'progress', 1, '{\"progress\": 0.7}')",
    ),
    (
        "ends",
        jobs.a_life_ends_once,
        "UPDATE job_events SET data = '{\"status\": \"failed\"}' WHERE job_id = DONE AND data->>'status' = 'running'",
    ),
    ("ends", jobs.unended, "UPDATE jobs SET status = 'queued', finished_at = NULL WHERE id = DONE"),
    (
        "ends",
        jobs.jobs_fail_for_their_own_reasons,
        'UPDATE jobs SET error = error || \'{"code": "internal_error"}\' WHERE id = MISSED',
    ),
    ("ends", jobs.jobs_fail_for_their_own_reasons, "UPDATE jobs SET status = 'succeeded' WHERE id = MISSED"),
    (
        "idempotency",
        jobs.one_key_makes_one_job,
        "UPDATE jobs SET body = jsonb_set(body, '{metadata}', (SELECT body->'metadata' FROM jobs WHERE id = DONE))",
    ),
    ("counts", counts.counts_are_what_the_lists_say, "UPDATE teams SET running = running + 1"),
    ("counts", counts.counts_are_what_the_lists_say, "UPDATE teams SET stored_bytes = stored_bytes - 1"),
    ("audit", audit.the_trail_is_whole, "DELETE FROM audit WHERE action = 'job.submit' AND object_id = DONE"),
    ("audit", audit.the_trail_is_whole, "DELETE FROM audit WHERE action = 'job.requeue'"),
    (
        "artifacts",
        artifacts.a_success_has_an_artifact,
        "DELETE FROM job_reports WHERE job_id = DONE",
    ),
]


@pytest.mark.parametrize(("promise", "check", "statement"), TAMPERED)
def test_rows_that_were_tampered_with_are_found(
    promise: str, check: Promise, statement: str, installed: Installed
) -> None:
    with installed.changed(statement), installed.look() as seen:
        assert broken(check(seen)) == {promise}


ASKED: dict[str, Any] = {"kind": "asked", "during": "fault 1 (hub_away)", "what": "health", "bound": 5.0, "error": None}
HOSTILE: dict[str, Any] = {"kind": "hostile", "what": "a file", "status": 422, "code": "unusable_model", "seconds": 1.0}

JOURNALS: list[tuple[str, Promise, Callable[[Installed], dict[str, Any]]]] = [
    ("accepted", jobs.accepted_jobs_exist, lambda it: {"kind": "accepted", "job": "job_0", "team": TEAM, "key": "k"}),
    (
        "idempotency",
        jobs.one_key_makes_one_job,
        lambda it: {"kind": "accepted", "job": "job_0", "team": TEAM, "key": "key-1"},
    ),
    (
        "answers",
        jobs.clients_are_told_nothing_wrong,
        lambda it: {"kind": "refused", "doing": "GET /", "team": TEAM, "status": 500, "text": ""},
    ),
    (
        "watching",
        events.watchers_see_every_event_once,
        lambda it: {"kind": "watched", "job": it.done, "sequences": [1, 2, 4], "ended": False},
    ),
    (
        "watching",
        events.watchers_see_every_event_once,
        lambda it: {"kind": "watched", "job": it.done, "sequences": [1, 2, 2, 3], "ended": False},
    ),
    (
        "watching",
        events.watchers_see_every_event_once,
        lambda it: {"kind": "watched", "job": it.done, "sequences": [1, 2], "ended": True},
    ),
    (
        "artifacts",
        artifacts.downloads_are_what_was_listed,
        lambda it: {"kind": "downloaded", "job": it.done, "path": "config.json", "sha256": "0", "listed": "1"},
    ),
    ("bystanders", bystanders.bystanders_are_served, lambda it: {**ASKED, "seconds": 6.0}),
    ("bystanders", bystanders.bystanders_are_served, lambda it: {**ASKED, "seconds": None, "error": "timed out"}),
    ("refusals", bystanders.hostile_files_are_refused, lambda it: {**HOSTILE, "status": 201, "code": ""}),
    ("refusals", bystanders.hostile_files_are_refused, lambda it: {**HOSTILE, "seconds": 31.0}),
    (
        "poisoned",
        bystanders.poisoned_rows_end_with_a_reason,
        lambda it: {"kind": "poisoned", "team": TEAM, "what": "job", "id": it.done},
    ),
    (
        "hub",
        bystanders.triggers_outlast_the_hub,
        lambda it: {"kind": "hub_trigger", "team": TEAM, "id": add_trigger(it.installation, TEAM, JOB)},
    ),
]


@pytest.mark.parametrize(("promise", "check", "entry"), JOURNALS)
def test_what_clients_were_told_wrong_is_found(
    promise: str, check: Promise, entry: Callable[[Installed], dict[str, Any]], installed: Installed
) -> None:
    with installed.look(entry(installed)) as seen:
        assert broken(check(seen)) == {promise}


@contextmanager
def stored(installed: Installed, key: str, content: bytes | None) -> Iterator[None]:
    """An object of the store as it should not be, None for gone, until the end of the context."""
    where = {"Bucket": installed.installation.bucket, "Key": key}
    client = boto3.client(
        "s3",
        endpoint_url=installed.installation.store_endpoint,
        aws_access_key_id="access",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    listed = client.list_objects_v2(Bucket=where["Bucket"], Prefix=key).get("Contents", [])
    before = client.get_object(**where)["Body"].read() if listed else None
    if content is None:
        client.delete_object(**where)
    else:
        client.put_object(**where, Body=content)
    try:
        yield
    finally:
        if before is None:
            client.delete_object(**where)
        else:
            client.put_object(**where, Body=before)


@pytest.mark.parametrize(
    ("promise", "check", "path", "content"),
    [
        ("artifacts", artifacts.listed_files_are_stored, "{done}/attempt-1/README.md", b"{}"),
        ("artifacts", artifacts.listed_files_are_stored, "{done}/attempt-1/model.safetensors", None),
        ("manifest", artifacts.manifests_are_complete, "{done}/attempt-1/model.safetensors", None),
        ("leftovers", leftovers.the_store_holds_only_what_is_named, "{done}/attempt-7/config.json", b"{}"),
        ("leftovers", leftovers.the_store_holds_only_what_is_named, "models/model_0/config.json", b"{}"),
        ("counts", counts.counts_are_what_the_lists_say, "{model}/config.json", b""),
    ],
)
def test_a_store_that_was_tampered_with_is_found(
    promise: str, check: Promise, path: str, content: bytes | None, installed: Installed
) -> None:
    with installed.look() as seen:
        model = next(key for key in seen.bucket.objects() if key.startswith("models/")).rpartition("/")[0]
        with stored(installed, path.format(done=installed.done, model=model), content):
            assert broken(check(seen)) == {promise}


def test_an_artifact_that_does_not_load_or_lacks_zeros_is_found(installed: Installed) -> None:
    layer = '{"layers": [{"name": "model.layers.0.mlp.up_proj", "zeros": 1}]}'
    with (
        installed.changed(f"UPDATE job_reports SET report = report || '{layer}' WHERE job_id = DONE"),
        stored(installed, f"{installed.tried_again}/attempt-2/config.json", b"{}"),
        installed.look() as seen,
    ):
        found = list(artifacts.masks_are_zero(seen))
    assert {(each.promise, each.job) for each in found} == {
        ("reload", installed.done),
        ("reload", installed.tried_again),
    }


@pytest.mark.parametrize(
    ("check", "change"),
    [
        (webhooks.every_event_is_delivered, lambda line: None),
        (webhooks.every_event_is_delivered, lambda line: line | {"id": "another"}),
        (webhooks.every_event_is_delivered, lambda line: line | {"id": "the same"}),
        (webhooks.deliveries_are_signed, lambda line: line | {"body": line["body"] + " "}),
        (webhooks.deliveries_are_signed, lambda line: line | {"path": "/elsewhere"}),
    ],
    ids=["missing", "two ids", "one id twice", "another body", "another endpoint"],
)
def test_deliveries_that_are_not_right_are_found(
    check: Promise, change: Callable[[dict[str, Any]], dict[str, Any] | None], installed: Installed
) -> None:
    file = installed.installation.received
    before = file.read_text()
    lines = [json.loads(line) for line in before.splitlines()]
    with installed.look() as seen:
        assert not list(check(seen))
        first = change(lines[0])
        extra = [] if first is None or first["id"] != "another" else [lines[0]]
        second = change(lines[1]) if first is not None and first["id"] == "the same" else lines[1]
        kept = [each for each in (first, second, *lines[2:], *extra) if each is not None]
        file.write_text("".join(json.dumps(each) + "\n" for each in kept))
        try:
            assert broken(check(seen)) == {"webhooks"}
        finally:
            file.write_text(before)


def test_a_timeline_has_events_and_faults_in_the_order_they_came(installed: Installed, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(installed.journal.path.read_text())
    fault = {"number": 4, "name": "kill", "target": "worker-1", "stage": "prune", "seconds": 0}
    with path.open("a") as file:
        for phase in ("begins", "healed"):
            file.write(json.dumps({"at": 1.0, "kind": "fault", **fault, "phase": phase}) + "\n")
    with installed.changed("DELETE FROM job_events WHERE job_id = DONE AND sequence = 3"), installed.look() as seen:
        checker.keep_events(path, seen, list(events.numbers_have_no_gaps(seen)))
    lines = checker.timeline(installed.done, path).splitlines()
    assert "FAULT 4 begins: kill of worker-1 in prune" in lines[1]
    assert any('"status": "succeeded"' in line for line in lines[3:])
