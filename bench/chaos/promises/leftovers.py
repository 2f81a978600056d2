"""What must not be there any more once all is over: files, uploads, work folders, processes, locks."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from bench.chaos.observation import ENDED, LEASED, Observation, Violation

_RUNNER = "secateur-runner"
_PARTIAL = (".partial", ".part", ".tmp", ".incoming")
_OLD_SECONDS = 60

_OLD = f"""
    SELECT pid, state, application_name, left(query, 200), extract(epoch FROM clock_timestamp() - xact_start)
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND xact_start < clock_timestamp() - interval '{_OLD_SECONDS} seconds'
"""
_LOCKS = """
    SELECT locks.pid, locks.locktype, locks.mode, activity.state
    FROM pg_locks AS locks JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
    WHERE locks.locktype = 'advisory' AND activity.datname = current_database() AND activity.state = 'idle'
"""


def the_store_holds_only_what_is_named(seen: Observation) -> Iterator[Violation]:
    """No file stays in the store that neither a job, nor a model, a dataset or an open upload names."""
    named = set()
    for found in seen.jobs.values():
        named |= {f"{found.id}/attempt-{found.kept_attempt}/{file['path']}" for file in found.files}
    prefixes = ["generated/", "owner/", "published/"]
    for team in seen.teams:
        for kind in ("models", "datasets"):
            prefixes += [f"{kind}/{each['id']}/" for each in seen.reader.all(team, f"/v1/{kind}")]
        for upload in seen.reader.all(team, "/v1/uploads", status="open"):
            prefixes.append(f"uploads/{upload['id']}/")
    for key in seen.bucket.objects():
        if key not in named and not key.startswith(tuple(prefixes)):
            job = key.partition("/")[0]
            yield Violation(
                "leftovers", f"{key} is in the store, and nothing names it", job if job in seen.jobs else None
            )


def no_upload_is_left(seen: Observation) -> Iterator[Violation]:
    """No upload stays that nobody goes on with, neither a client's nor one in parts of a process that was killed."""
    for team in seen.teams:
        for upload in seen.reader.all(team, "/v1/uploads", status="open"):
            yield Violation("leftovers", f"upload {upload['id']} ({upload['name']}) of {team} is still open")
    for key in seen.bucket.unfinished():
        yield Violation("leftovers", f"an upload in parts to {key} was neither finished nor given up")


def no_work_is_left(seen: Observation) -> Iterator[Violation]:
    """A worker keeps a work folder for what goes on or can be tried again, and nothing half written."""
    for home in sorted(seen.installation.folder.glob("worker-*")):
        for folder in sorted(home.glob("work/*")):
            found = seen.jobs.get(folder.name)
            if found is None or found.job["status"] == "succeeded":
                what = "of nothing" if found is None else "of a job that succeeded"
                yield Violation("leftovers", f"{folder} is a work folder {what}", folder.name)
        for file in home.rglob("*"):
            goes_on = not {home / "work", home / "cache/partial"}.isdisjoint(file.parents)
            if not goes_on and file.name.endswith(_PARTIAL):
                yield Violation("leftovers", f"{file} is half a file that nobody writes")
    for worker in seen.reader.json(seen.teams[0], "/v1/workers")["data"]:
        job = next((found for found in seen.jobs.values() if found.id == worker["job_id"]), None)
        if worker["state"] == "busy" and (job is None or job.job["status"] not in LEASED):
            yield Violation("leftovers", f"{worker['id']} is told to be busy, and no job runs", worker["job_id"])


def no_transaction_is_left(seen: Observation) -> Iterator[Violation]:
    """No transaction stands open for longer than a minute, and no lock is held by a connection that does nothing."""
    url = make_url(seen.installation.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        for pid, state, application, query, seconds in connection.execute(_OLD).fetchall():
            text = f"backend {pid} ({application}, {state}) is in a transaction for {seconds:.0f} s: {query}"
            yield Violation("leftovers", text)
        for pid, kind, mode, state in connection.execute(_LOCKS).fetchall():
            yield Violation("leftovers", f"backend {pid}, which is {state}, holds a lock ({kind}, {mode})")


def processes_left(seen: Observation, run_id: str, expected: Collection[int]) -> Iterator[Violation]:
    """No process of the run is left but those that should run and what they keep: no runner once no job runs."""
    is_over = all(found.job["status"] in ENDED for found in seen.jobs.values())
    parents = dict(_processes(run_id))
    for pid in parents:
        if not _descends(pid, parents, set(expected)):
            yield Violation("leftovers", f"process {pid} ({_command(pid)}) is left, and is nobody's")
        elif is_over and pid not in expected and _name(pid) == _RUNNER:
            yield Violation("leftovers", f"runner {pid} is left, though no job runs")


def _processes(run_id: str) -> Iterator[tuple[int, int]]:
    """Yield the id, and the parent's, of every process that was started with CHAOS_RUN for this run; of LC_CHAOS_RUN,
    which a runner is left with, too.
    """
    marks = {f"CHAOS_RUN={run_id}".encode(), f"LC_CHAOS_RUN={run_id}".encode()}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if not marks.isdisjoint((folder / "environ").read_bytes().split(b"\0")):
                    state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                    if state != "Z":
                        yield int(folder.name), int(parent)


def _descends(pid: int, parents: dict[int, int], expected: Collection[int]) -> bool:
    while pid in parents and pid not in expected:
        pid = parents[pid]
    return pid in expected


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return ""
