"""Requests made from the OpenAPI document, meant and not meant, against the real service: nothing it answers is a fault
of the server, and nothing it answers is missing in the document.
"""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from api.openapi.examples.automation import EXAMPLES, PARAMETERS
from core.database import transaction
from core.http.address_policy import AddressPolicy
from core.service.teams.server_secret import server_secret
from core.service.triggers.secrets import digest
from core.service.triggers.tables import TriggerRow
from core.settings import Settings
from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.model_folders import write_llama, write_text

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "unsupported_method",
    "ignored_auth",
)


ONE_KEY = "^/v1/keys/."
"""Calls on one key: they revoke the caller's own, sooner or later, after which all others answer 401."""
RUNS = {
    "with a key": ["--exclude-path-regex", ONE_KEY],
    "without a key": [],
    "with a key, on keys": ["--include-path-regex", ONE_KEY],
}
"""The calls that are made, one after another."""
SECONDS = {"with a key": 4, "without a key": 1, "with a key, on keys": 1}
"""The budget of all phases together."""
NIGHTLY_SECONDS = 40
IN_ONE_PROCESS = """
import json, sys
from schemathesis.cli import schemathesis

for name, arguments in json.loads(sys.argv[1]).items():
    try:
        schemathesis.main(arguments)
    except SystemExit as ended:
        print(f"{name}: {ended.code}", file=sys.stderr)
"""
"""Loading the program takes as long as some of the runs."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nobody is told to slow down: here callers are in a hurry."""
    return settings.model_copy(update={"requests_per_minute": 0, "worker_fresh_seconds": 3600})


@pytest.fixture(autouse=True)
def _names_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name does, at once: no request waits for a resolver."""
    monkeypatch.setattr("api.state.AddressPolicy", partial(AddressPolicy, resolve=lambda name, port: ["8.8.8.8"]))


@pytest.fixture
def garden(
    live_api: httpx.Client, settings: Settings, sessions: sessionmaker[Session], store: Store, tmp_path: Path
) -> None:
    """What the document's examples name, so that they are taken: a model, two texts, a job, a worker, a trigger."""
    folder = write_llama(settings.models_root / "oak").resolve()
    text = write_text(settings.datasets_root / "leaves.txt", words=40_000).resolve()
    for noun, name, path in (
        ("models", "smollm2-135m", folder),
        ("datasets", "wikipedia-calibration", text),
        ("datasets", "wikipedia-articles", text),
    ):
        live_api.post(f"/v1/{noun}", json={"name": name, "path": str(path)}).raise_for_status()
    succeeded_job(live_api, sessions, store, tmp_path / "artifact", model="smollm2-135m")
    live_api.post("/v1/triggers", json={**EXAMPLES["TriggerBody"], "name": "taken"}).raise_for_status()
    named = {
        "id": PARAMETERS["trigger_id"],
        "token_digest": digest(PARAMETERS["token"], server_secret(settings)),
    }
    with transaction(sessions) as session:
        session.execute(update(TriggerRow).values(named))


@pytest.mark.usefixtures("garden")
@pytest.mark.parametrize(
    "seconds", [SECONDS, pytest.param(dict.fromkeys(RUNS, NIGHTLY_SECONDS), marks=pytest.mark.nightly)],
    ids=["some", "many"],
)  # fmt: skip
@pytest.mark.timeout(600)  # whatever others have: on a busy machine one answer alone may take a minute
def test_no_request_gets_an_answer_the_document_does_not_promise(
    live_api: httpx.Client, admin_key: str, tmp_path: Path, seconds: dict[str, int]
) -> None:
    live_api.get("/openapi.json", timeout=120).raise_for_status()  # made now: schemathesis waits ten seconds for it
    runs = {
        run: [
            *("run", f"{live_api.base_url}/openapi.json", *chosen),
            *(["--header", f"Authorization: Bearer {admin_key}"] if run != "without a key" else []),
            *("--checks", ",".join(CHECKS if run != "without a key" else CHECKS[:-1])),
            *("--max-time", str(seconds[run]), "--max-examples", "25", "--seed", "1"),
            *("--generation-database", "none", "--request-timeout", "60", "--continue-on-failure", "--no-color"),
        ]
        for run, chosen in RUNS.items()
    }
    ended = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS, json.dumps(runs)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300 + sum(seconds.values()),
        check=False,
    )
    told = ended.stdout[-20_000:] + ended.stderr[-2_000:]
    assert ended.returncode == 0, told
    assert ended.stderr.splitlines()[-len(runs) :] == [f"{run}: 0" for run in runs], told
