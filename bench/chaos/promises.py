"""The promises: each a function that yields where an installation broke it. Those of a job are first; then what lies
around jobs: artifacts, counts, webhooks, what a team is told of faults from outside, and what must not be there any
more once all is over.
"""

import base64
import hashlib
import hmac
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from bench.chaos.installation import ENDED, LEASED, OUTSIDERS, Observation, SeenJob, of_jobs, promise
from bench.chaos.processes import RUNNER
from tests.webhooks.receiver import Received

PASSING = frozenset({"runner_lost", "disk_full", "unavailable", "store_unavailable"})
"""Codes of what may end an attempt because of what was done to the installation; a job may run out of attempts."""
STAGES = ("fetch", "open", "prune", "recover", "evaluate", "verify", "store")
_NEXT = {
    None: {"queued"},
    "queued": {"running", "cancelled"},
    "running": {"succeeded", "failed", "cancelled", "cancelling", "queued"},
    "cancelling": {"cancelled"},
    "succeeded": set(),
    "failed": {"queued"},
    "cancelled": {"queued"},
}
_OUTCOMES = {
    "succeeded": {"succeeded"},
    "failed": {"failed", "lost"},
    "cancelled": {"cancelled"},
    "queued": {"failed", "lost", "released"},
}
"""Ends that an attempt may have had, by the state in which it left the job."""
_ACTIONS_OF_REASONS = {"submitted": "job.submit", "retry": "job.retry", "requested": "job.cancel"}
_ACTIONS_OF_STATUSES = {
    "running": "job.start",
    "cancelled": "job.stop",
    "succeeded": "job.succeed",
    "failed": "job.fail",
    "queued": "job.requeue",
}
MANIFEST = "secateur.json"
_FETCHED = 5
"""Files that are downloaded through the API in each look."""
_PARSED_SECONDS = 30.0
"""Until a part is refused, on a machine that is busy."""
_PARTIAL = (".partial", ".part", ".tmp", ".incoming")
_OLD = """
    SELECT pid, state, application_name, left(query, 200), extract(epoch FROM clock_timestamp() - xact_start)
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND xact_start < clock_timestamp() - interval '1 minute'
"""
_LOCKS = """
    SELECT locks.pid, locks.locktype, locks.mode, activity.state
    FROM pg_locks AS locks JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
    WHERE locks.locktype = 'advisory' AND activity.datname = current_database() AND activity.state = 'idle'
"""


@of_jobs
def every_job_ends(found: SeenJob) -> Iterator[str]:
    """Every job ends within the bound after the last fault, and none waits longer."""
    if found.status not in ENDED:
        what = f"is still {found.status} (attempt {found.job['attempt']}, stage {found.job['stage']})"
        yield f"{what}, longer than the bound after the last fault"


@promise
def accepted_jobs_exist(seen: Observation) -> Iterator[str]:
    """A job whose submission was answered is there, whatever happened afterwards."""
    for entry in seen.noted("accepted"):
        found = seen.jobs.get(entry["job"])
        if found is None or found.team != entry["team"]:
            yield f"{entry['team']} was told of {entry['job']}, and does not have it"


@promise
def one_key_makes_one_job(seen: Observation) -> Iterator[str]:
    """What was submitted more than once with one idempotency key is one job, also where no answer came."""
    told: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in seen.noted("accepted"):
        told[entry["team"], entry["key"]].add(entry["job"])
    for found in seen.jobs.values():
        if "submission" in found.job["metadata"]:
            told[found.team, found.job["metadata"]["submission"]].add(found.id)
    for (team, key), jobs in told.items():
        if len(jobs) > 1:
            yield f"{team}'s key {key} made {len(jobs)} jobs: {sorted(jobs)}"


@promise
def jobs_fail_for_their_own_reasons(seen: Observation) -> Iterator[str]:
    """A job fails for the reason it was made to, or has used up its attempts for passing ones; what should fail does
    not succeed.
    """
    for entry in {entry["job"]: entry for entry in seen.noted("accepted")}.values():
        found = seen.jobs.get(entry["job"])
        if found is None or "ends" not in entry:
            continue
        error = found.job["error"]
        if found.status == "succeeded" and entry["ends"] is not None:
            yield f"{found.id} succeeded, and should have failed: {entry['ends']}"
        if found.status == "failed" and error["code"] not in PASSING | {entry["ends"]}:
            yield f"{found.id} failed: {error['code']}: {error['message']}"


@promise
def clients_are_told_nothing_wrong(seen: Observation) -> Iterator[str]:
    """A good client's requests are answered, or refused for a passing reason: never by an error of the service's own,
    nor by saying that what was accepted is wrong or not there.
    """
    for entry in seen.noted("refused"):
        yield f"{entry['doing']} of {entry['team']}: {entry['text']}"


@promise
def watchers_see_every_event_once(seen: Observation) -> Iterator[str]:
    """A watcher who goes on with Last-Event-ID, through whichever process, gets every event once and in order."""
    for entry in seen.noted("watched"):
        numbers = entry["sequences"]
        found = seen.jobs.get(entry["job"])
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"a watcher of {entry['job']} got {numbers}"
        elif found is not None and numbers and entry["ended"]:
            last = next((event for event in found.events if event["sequence"] == numbers[-1]), None)
            if last is None or last["data"].get("status") not in ENDED:
                yield f"the stream of {entry['job']} ended behind event {numbers[-1]}: {last}"


@of_jobs
def numbers_have_no_gaps(found: SeenJob) -> Iterator[str]:
    """A job's events are numbered from 1 on, without a gap and none twice."""
    numbers = [event["sequence"] for event in found.events]
    if numbers != list(range(1, len(numbers) + 1)):
        wrong = next((at for at, number in enumerate(numbers, start=1) if at != number), len(numbers) + 1)
        yield f"numbers are not 1 to {len(numbers)}: {numbers[max(0, wrong - 3) : wrong + 2]} around {wrong}"


@of_jobs
def no_write_of_an_attempt_after_a_newer_one(found: SeenJob) -> Iterator[str]:
    """An attempt writes only while it holds the job. Once it has begun, no earlier attempt writes an event, a report or
    an artifact.
    """
    newest, status = 0, ""
    stages: set[tuple[int, str]] = set()
    before: tuple[int, str] | None = None
    for event in found.events:
        where = f"event {event['sequence']} ({event['type']} {event['data']})"
        if event["attempt"] < newest:
            yield f"{where} is of attempt {event['attempt']}, after {newest} began"
        newest = max(newest, event["attempt"])
        if event["type"] == "status":
            status = event["data"]["status"]
            continue
        if status not in LEASED and event["attempt"]:  # before the first attempt it is the service that writes
            yield f"{where} was written while the job was {status}"
        stage = (event["attempt"], event["data"]["stage"]) if event["type"] == "stage" else None
        if stage is not None:
            if stage in stages and stage != before:  # written again where the commit was not answered
                yield f"{where}: the stage begins twice, as of two attempts"
            stages.add(stage)
        before = stage
    written = (found.report or {}).get("attempt")
    if written is not None and found.kept_attempt is not None and written != found.kept_attempt:
        yield f"the report is of attempt {written}, the job was ended by attempt {found.kept_attempt}"


@of_jobs
def only_legal_transitions(found: SeenJob) -> Iterator[str]:
    """A job goes from state to state only as its life allows, and is in the one its last event says."""
    before: str | None = None
    for event in found.statuses:
        status = event["data"]["status"]
        step = (before, status, event["attempt"])
        is_next = status in _NEXT[before] or step == ("queued", "failed", 0)  # its model could not be resolved
        if not is_next or (before in ENDED and event["data"].get("reason") != "retry"):
            yield f"event {event['sequence']}: from {before} to {status}"
        before = status
    if before != found.status:
        yield f"is {found.status}, its last event says {before}"


@of_jobs
def attempts_are_counted(found: SeenJob) -> Iterator[str]:
    """Every time a worker takes a job is an attempt, counted one by one, and recorded with how it ended."""
    began = [event["attempt"] for event in found.statuses if event["data"]["status"] == "running"]
    if began != list(range(1, len(began) + 1)):
        yield f"attempts that began, by the events: {began}"
    if found.job["attempt"] != len(began):
        yield f"{found.job['attempt']} by the job, {len(began)} by the events"
    if (listed := [each["attempt"] for each in found.attempts]) != began:
        yield f"{listed} are listed, {began} began"
    ends = {
        event["attempt"]: event["data"]["status"]
        for event in reversed(found.statuses)  # the first that ends the attempt, not a cancellation in the queue
        if event["data"]["status"] in _OUTCOMES and event["data"].get("reason") not in ("retry", "requested")
    }
    for each in found.attempts:
        end = ends.get(each["attempt"])
        if each["outcome"] not in (_OUTCOMES[end] if end else {None}):
            yield f"attempt {each['attempt']} is recorded as {each['outcome']}, and left the job {end}"
        if (each["ended_at"] is None) != (each["outcome"] is None):
            yield f"attempt {each['attempt']}: {each['outcome']}, {each['ended_at']}"


@of_jobs
def attempts_go_forward(found: SeenJob) -> Iterator[str]:
    """Within an attempt the stages come in their order, and progress goes from 0 to 1 and never back."""
    reached: dict[tuple[str, int], float] = defaultdict(float)
    for event in found.events:
        if event["type"] in ("stage", "progress"):
            said = event["data"][event["type"]]
            now = STAGES.index(said) if event["type"] == "stage" else said
            which = event["type"], event["attempt"]
            if now < reached[which] or (event["type"] == "progress" and now > 1):
                yield f"event {event['sequence']}: {event['type']} {said} behind {reached[which]}"
            reached[which] = now


@promise
def the_trail_is_whole(seen: Observation) -> Iterator[str]:
    """Whatever was done to a job has its entry, once: who submitted it, cancelled it or had it tried again, and each
    attempt's beginning and end.
    """
    for team in seen.teams:
        entries: dict[str, Counter[str]] = defaultdict(Counter)
        for entry in seen.all(team, "/v1/audit"):
            entries[entry["object_id"]][entry["action"]] += 1
        for found in seen.jobs.values():
            if found.team != team:
                continue
            done = Counter(
                _ACTIONS_OF_REASONS.get(event["data"].get("reason")) or _ACTIONS_OF_STATUSES[event["data"]["status"]]
                for event in found.statuses
            )
            for action in sorted(done | entries[found.id]):
                written = entries[found.id][action]
                if action.startswith("job.") and written != done[action]:
                    yield f"{found.id}: {action} {done[action]} times by the events, {written} by the trail"


def manifests_are_complete(seen: Observation) -> Iterator[str]:
    """The manifest comes last: a folder of the store that has one has every file it names, whoever was killed. To be
    looked at before orphans are swept.
    """
    objects = seen.objects()
    for key in objects:
        prefix, _, name = key.rpartition("/")
        if name != MANIFEST:
            continue
        for path, facts in json.loads(seen.content(key))["files"].items():
            stored = objects.get(f"{prefix}/{path}")
            if stored != facts["bytes"]:
                yield f"{key} names {path} of {facts['bytes']} bytes, the store has {stored}"


@promise
def listed_files_are_stored(seen: Observation) -> Iterator[str]:
    """Every file that is listed lies in the store below the attempt that made it, of its size and SHA-256, and is what
    the API sends.
    """
    objects = seen.objects()
    listed = [(found, file) for found in seen.jobs.values() for file in found.files]
    sent = random.sample(listed, min(_FETCHED, len(listed)))
    for found, file in listed:
        key = found.key(file)
        content = seen.content(key) if key in objects else b""
        if hashlib.sha256(content).hexdigest() != file["sha256"] or len(content) != file["bytes"]:
            yield f"{key} is listed; the store has {len(content)} bytes that are not those"
        elif (found, file) in sent:
            answer = seen.get(found.team, f"/v1/jobs/{found.id}/artifacts/{quote(file['path'])}")
            if answer.content != content:
                yield f"{key} is sent as {answer.status_code}, {len(answer.content)} other bytes"


@of_jobs
def a_success_has_an_artifact(found: SeenJob) -> Iterator[str]:
    """A job that succeeded lists a whole model, with its manifest, which names the very same files, and a report."""
    if found.status != "succeeded":
        return
    names = {file["path"] for file in found.files}
    if not {MANIFEST, "README.md", "config.json"} <= names or not any(each.endswith(".safetensors") for each in names):
        yield f"succeeded with {sorted(names)}"
    if found.report is None:
        yield "succeeded without a report"


@promise
def counts_are_what_the_lists_say(seen: Observation) -> Iterator[str]:
    """A team's running and queued jobs and stored bytes, by which quotas go, are what its lists and the store hold."""
    objects = seen.objects()
    for team in seen.teams:
        usage = seen.json(team, "/v1/team")["usage"]
        jobs = [found for found in seen.jobs.values() if found.team == team]
        stored = sum(file["bytes"] for found in jobs for file in found.files)
        for kind in ("models", "datasets"):
            prefixes = tuple(f"{kind}/{each['id']}/" for each in seen.all(team, f"/v1/{kind}"))
            stored += sum(size for key, size in objects.items() if key.startswith(prefixes))
        opened = seen.all(team, "/v1/uploads", status="open")
        stored += sum(file["bytes"] for upload in opened for file in upload["files"])
        counted = {
            "running": sum(found.status in LEASED for found in jobs),
            "queued": sum(found.status == "queued" for found in jobs),
            "stored_bytes": stored,
        }
        for name, count in counted.items():
            if usage[name] != count:
                yield f"{team}: {name} is told to be {usage[name]}, and is {count}"


@promise
def hostile_files_are_refused(seen: Observation) -> Iterator[str]:
    """A file made to be slow to read is refused in time, by an error with a name."""
    for entry in seen.noted("hostile"):
        if not 400 <= entry["status"] < 500 or entry["seconds"] > _PARSED_SECONDS:
            yield f"a hostile file: {entry['status']} {entry['code']} after {entry['seconds']:.1f} s"


@promise
def poisoned_rows_end_with_a_reason(seen: Observation) -> Iterator[str]:
    """A row that cannot be carried out is given up, and its team is told why."""
    for entry in seen.noted("poisoned"):
        path = f"/v1/{entry['what']}/{entry['id']}"
        if entry["what"] == "triggers":
            ends = [(each["outcome"], each["error"]) for each in seen.all(OUTSIDERS, f"{path}/firings")]
        else:
            row = seen.json(OUTSIDERS, path)
            ends = [(row["status"], row["error"])]
        if not any(end in ("refused", "failed") and error["message"] for end, error in ends):
            yield f"{path} has not ended with a reason: {ends}"


@promise
def every_event_is_delivered(seen: Observation) -> Iterator[str]:
    """An endpoint is told of every event it asked for at least once, always under one id, which is of nothing else.
    Whatever it is sent is signed with its secret, as Standard Webhooks has it.
    """
    for endpoint in seen.noted("endpoint"):
        ids: dict[tuple[str, int], set[str]] = defaultdict(set)
        events: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for sent in seen.installation.hooks.of(endpoint["path"]):
            name, data = sent.headers["webhook-id"], sent.event["data"]
            if _signature(endpoint["secret"], sent) not in sent.headers["webhook-signature"].split():
                yield f"{name} at {endpoint['path']} is not signed with the endpoint's secret"
            if "sequence" in data:
                ids[data["id"], data["sequence"]].add(name)
                events[name].add((data["id"], data["sequence"]))
        for found in seen.jobs.values():
            for event in _wanted(endpoint, found):
                told = ids.get((found.id, event["sequence"]), set())
                if len(told) != 1:
                    what = f"event {event['sequence']} ({event['data']['status']}) for {endpoint['path']}"
                    yield f"{what} came under {len(told)} ids: {sorted(told)}"
        yield from (f"{name} is the id of {sorted(of)}" for name, of in events.items() if len(of) > 1)


def _wanted(endpoint: dict[str, Any], found: SeenJob) -> list[dict[str, Any]]:
    if found.team != endpoint["team"] or not endpoint.get("metadata", {}).items() <= found.job["metadata"].items():
        return []
    types = endpoint.get("types")
    return [event for event in found.statuses if not types or f"job.{event['data']['status']}" in types]


def _signature(secret: str, sent: Received) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{sent.headers['webhook-id']}.{sent.headers['webhook-timestamp']}.".encode() + sent.body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


@promise
def the_store_holds_only_what_is_named(seen: Observation) -> Iterator[str]:
    """No file stays in the store that neither a job, nor a model, a dataset or an open upload names."""
    named = {found.key(file) for found in seen.jobs.values() for file in found.files}
    prefixes = ["generated/", "owner/"]
    for team in seen.teams:
        for kind in ("models", "datasets"):
            prefixes += [f"{kind}/{each['id']}/" for each in seen.all(team, f"/v1/{kind}")]
        prefixes += [f"uploads/{each['id']}/" for each in seen.all(team, "/v1/uploads", status="open")]
    for key in seen.objects():
        if key not in named and not key.startswith(tuple(prefixes)):
            yield f"{key} is in the store, and nothing names it"


@promise
def no_upload_is_left(seen: Observation) -> Iterator[str]:
    """No upload stays that nobody goes on with, neither a client's nor one in parts of a process that was killed."""
    for team in seen.teams:
        for upload in seen.all(team, "/v1/uploads", status="open"):
            yield f"upload {upload['id']} ({upload['name']}) of {team} is still open"
    for each in seen.s3.list_multipart_uploads(Bucket=seen.installation.bucket).get("Uploads", []):
        yield f"an upload in parts to {each['Key']} was neither finished nor given up"


@promise
def no_work_is_left(seen: Observation) -> Iterator[str]:
    """A worker keeps a work folder for what goes on or can be tried again, and nothing half written."""
    for home in sorted(seen.installation.folder.glob("worker-*")):
        for folder in sorted(home.glob("work/*")):
            found = seen.jobs.get(folder.name)
            if found is None or found.status == "succeeded":
                what = "of nothing" if found is None else "of a job that succeeded"
                yield f"{folder} is a work folder {what}"
        for file in home.rglob("*"):
            goes_on = not {home / "work", home / "cache/partial"}.isdisjoint(file.parents)
            if not goes_on and file.name.endswith(_PARTIAL):
                yield f"{file} is half a file that nobody writes"
    for worker in seen.json(seen.teams[0], "/v1/workers")["data"]:
        job = seen.jobs.get(worker["job_id"])
        if worker["state"] == "busy" and (job is None or job.status not in LEASED):
            yield f"{worker['id']} is told to be busy, and no job runs"


@promise
def no_transaction_is_left(seen: Observation) -> Iterator[str]:
    """No transaction stands open for longer than a minute, and no lock is held by a connection that does nothing."""
    with seen.installation.connect() as connection:
        for pid, state, application, query, seconds in connection.execute(_OLD).fetchall():
            yield f"backend {pid} ({application}, {state}) is in a transaction for {seconds:.0f} s: {query}"
        for pid, kind, mode, state in connection.execute(_LOCKS).fetchall():
            yield f"backend {pid}, which is {state}, holds a lock ({kind}, {mode})"


@promise
def no_process_is_left(seen: Observation) -> Iterator[str]:
    """No process of the run is left but those that should run and what they keep: no runner once no job runs."""
    is_over = all(found.status in ENDED for found in seen.jobs.values())
    processes = dict(_processes(seen.run_id))
    for pid, process in processes.items():
        above = pid
        while above in processes and above not in seen.expected_pids:
            above = processes[above]["ppid"]
        if above not in seen.expected_pids:
            yield f"process {pid} ({' '.join(process['cmdline'] or ())[:200]}) is left, and is nobody's"
        elif is_over and pid not in seen.expected_pids and process["name"] == RUNNER:
            yield f"runner {pid} is left, though no job runs"


def _processes(run_id: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the id of every process that was started with CHAOS_RUN for this run, and what it is; of LC_CHAOS_RUN,
    which a runner is left with, too.
    """
    marks = {f"CHAOS_RUN={run_id}".encode(), f"LC_CHAOS_RUN={run_id}".encode()}
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if not marks.isdisjoint(environment) and process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid, process.as_dict(["ppid", "name", "cmdline"])
