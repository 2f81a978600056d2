"""Models of the hub as users meet them: named in a request, looked at before anything is queued or fetched. Answers of
the hub in shapes that nobody expects.
"""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.architectures.describe import describe_source
from core.service.jobs.tables import JobRow
from core.service.sources.hub import Hub
from core.service.sources.hub_models import HubRevision
from core.service.sources.hub_revisions import PUBLIC, find_revision, forget_unused_revisions, remember_revision
from core.service.sources.hub_search import HubSearch
from core.settings import Settings
from secateur_wire.errors import SecateurError
from tests.conftest import bearer
from tests.model_folders import write_llama
from tests.serving import lent_app
from tests.sources.conftest import folder_files
from tests.sources.hub_files import Repository
from tests.sources.hub_server import TOKEN, HubState
from tests.worker.conftest import eventually


@pytest.fixture
def repository(hub: HubState, tmp_path: Path) -> Repository:
    repository = hub.add("model", "Org/Tiny-Llama")
    repository.commit_folder(write_llama(tmp_path / "tiny"))
    return repository


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """Of a model that could be used."""
    return folder_files(write_llama(tmp_path / "another", seed=1))


@pytest.fixture
def with_token(settings: Settings, admin_key: str) -> Iterator[TestClient]:
    """The application with a token of the hub that its operator lends to all teams."""
    changed = settings.model_copy(update={"hub_token": SecretStr(TOKEN), "hub_token_teams": ["*"]})
    with lent_app(changed) as app, TestClient(app, raise_server_exceptions=False) as client:
        client.headers.update(bearer(admin_key))
        yield client


def body(dataset: str, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "method": "wanda",
        "sparsity": 0.5,
        "calibration": {"dataset": dataset, "samples": 8, "sequence_length": 32},
    }


def test_a_branch_is_resolved_to_a_commit_and_the_job_names_it(
    api: TestClient, repository: Repository, dataset: str, sessions: sessionmaker[Session]
) -> None:
    commit = repository.branches["main"]
    job = api.post("/v1/jobs", json=body(dataset, "Org/Tiny-Llama")).json()
    assert (job["model"], job["model_revision"]) == (f"Org/Tiny-Llama@{commit}", commit), job
    with transaction(sessions) as session:
        source = session.scalars(select(JobRow.sources)).one()["model"]
    assert source["kind"] == "hub" and source["revision"] == commit
    assert {file["path"] for file in source["files"]} == {"config.json", "model.safetensors"}
    listed = api.get("/v1/jobs", params={"model": "Org/Tiny-Llama"}).json()["data"]
    assert [each["id"] for each in listed] == [job["id"]]
    again = api.post("/v1/jobs", json=body(dataset, job["model"])).json()
    assert again["model_revision"] == commit


def test_inspecting_reads_only_headers(api: TestClient, hub: HubState, tmp_path: Path) -> None:
    large = write_llama(tmp_path / "large", hidden=64, intermediate=4096)
    hub.add("model", "org/large").commit_folder(large)
    inspected = api.post("/v1/models/inspect", json={"model": "org/large"}).json()
    assert inspected["layers"] == 2 and inspected["hidden_size"] == 64, inspected
    assert inspected["bytes"] > 2**22 and sum(hub.served.values()) < 2**20


def answer(client: TestClient, model: str) -> tuple[int, str, str]:
    response = client.post("/v1/models/inspect", json={"model": model})
    problem = response.json()
    return response.status_code, problem.get("code", ""), problem.get("detail", "")


def test_gated_missing_private_and_unreachable_are_told_apart(
    api: TestClient, with_token: TestClient, hub: HubState, files: dict[str, bytes]
) -> None:
    hub.add("model", "org/gated", gated=True).commit(files)
    hub.add("model", "org/private", private=True).commit(files)
    status, code, detail = answer(api, "org/gated")
    assert (status, code) == (422, "gated_model") and "terms" in detail
    assert [answer(with_token, name)[0] for name in ("org/gated", "org/private")] == [200, 200]
    for missing in ("org/private", "org/nothing"):
        status, code, detail = answer(api, missing)
        assert (status, code) == (422, "unknown_model") and "private" in detail
    status, code, detail = answer(with_token, "org/private@no-such-branch")
    assert (status, code) == (422, "unknown_model") and "no-such-branch" in detail
    hub.down = True
    response = api.post("/v1/models/inspect", json={"model": "org/anything"})
    assert (response.status_code, response.json()["code"]) == (503, "hub_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert not hub.token_seen_elsewhere


def _with_config(files: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    config = json.loads(files["config.json"]) | changes
    return files | {"config.json": json.dumps(config).encode()}


def _index(files: dict[str, bytes], shard: str) -> dict[str, bytes]:
    rest = {name: data for name, data in files.items() if name != "model.safetensors"}
    return rest | {"model.safetensors.index.json": json.dumps({"weight_map": {"x": shard}}).encode()}


def test_what_could_run_code_or_is_no_model_is_refused_by_name(
    api: TestClient, hub: HubState, files: dict[str, bytes]
) -> None:
    weights = files["model.safetensors"]
    without = {"config.json": files["config.json"]}
    lies = len(weights).to_bytes(8, "little") + weights[8:]
    cases: dict[str, tuple[dict[str, bytes], str, str]] = {
        "pickle": (without | {"pytorch_model.bin": b"cos\nsystem"}, "pickle_checkpoint", "pytorch_model.bin"),
        "code": (_with_config(files, auto_map={"AutoModel": "x.Y"}), "unsafe_config", "auto_map"),
        "kernel": (
            _with_config(files, text_config={"attn_implementation": "org/kernel"}),
            "unsafe_config",
            "config.json holds 'text_config.attn_implementation'",
        ),
        "tokenizer": (
            files | {"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["x.Y", null]}}'},
            "unsafe_config",
            "tokenizer_config.json holds 'auto_map'",
        ),
        "template": (files | {"chat_template.jinja": b"{% if"}, "unusable_model", "chat_template.jinja"),
        "nothing": ({"README.md": b"hello"}, "unusable_model", "config.json"),
        "broken": (files | {"model.safetensors": lies}, "corrupt_safetensors", "model.safetensors"),
        "short": (files | {"model.safetensors": weights[:-5]}, "corrupt_safetensors", "truncated"),
        "escaping": (_index(files, "../../../etc/passwd"), "path_escapes", "passwd"),
        "shardless": (_index(files, "model-1.safetensors"), "missing_tensors", "model-1.safetensors"),
    }
    for name, (content, code, word) in cases.items():
        hub.add("model", f"org/{name}").commit(content)
        status, got, detail = answer(api, f"org/{name}")
        assert (status, got) == (422, code), (name, detail)
        assert word in detail and f"org/{name}" in detail, detail


def test_a_hub_that_is_slow_holds_no_database_connection(
    api: TestClient, hub: HubState, repository: Repository, dataset: str
) -> None:
    assert isinstance(api.app, FastAPI)
    pool = api.app.state.api.sessions.kw["bind"].pool
    held: list[int] = []
    hub.before_answer = lambda: held.append(pool.checkedout())
    assert api.post("/v1/jobs", json=body(dataset, "Org/Tiny-Llama")).status_code == 201
    assert len(held) >= 4 and not any(held), "listing, config, header twice (redirected)"


def test_look_ups_that_a_silent_hub_keeps_waiting_leave_room_for_others(
    live_api: httpx.Client, admin_key: str, hub: HubState
) -> None:
    answers = threading.Event()
    hub.before_answer = lambda: answers.wait(60) and None

    def inspect(number: int) -> str:
        code: str = live_api.post("/v1/models/inspect", json={"model": f"forest/oak-{number}"}).json()["code"]
        return code

    with ThreadPoolExecutor(60) as pool:
        looks = [pool.submit(inspect, number) for number in range(60)]
        try:
            eventually(lambda: sum(each.done() for each in looks) >= 36)
            assert live_api.get("/v1/methods").status_code == 200
        finally:
            answers.set()
        assert {each.result() for each in looks} <= {"hub_unavailable", "unknown_model"}


def test_a_model_larger_than_the_service_fetches_is_refused_with_the_figures(
    settings: Settings, admin_key: str, repository: Repository
) -> None:
    small = settings.model_copy(update={"hub_max_bytes": 10_000})
    size = sum(map(len, repository.commits[repository.branches["main"]].values()))
    with lent_app(small) as app, TestClient(app, headers=bearer(admin_key)) as client:
        status, code, detail = answer(client, "Org/Tiny-Llama")
    assert (status, code) == (422, "model_too_large") and str(size) in detail and "10000" in detail


def test_of_a_team_so_many_are_remembered_those_used_last(sessions: sessionmaker[Session], tmp_path: Path) -> None:
    description = describe_source(write_llama(tmp_path / "oak"))

    def revision(number: int) -> HubRevision:
        return HubRevision("forest/oak", f"{number:040}", description, (), is_public=True)

    for number in range(5):
        with transaction(sessions) as session:
            remember_revision(session, PUBLIC, revision(number), "team_a", most=3)
    with transaction(sessions) as session:
        remember_revision(session, "team_b", revision(0), "team_b", most=3)
        rows = session.execute(text("SELECT team_id, revision FROM hub_revisions ORDER BY team_id, revision")).all()
    assert rows == [*(("team_a", f"{number:040}") for number in (2, 3, 4)), ("team_b", f"{0:040}")]
    with transaction(sessions) as session:
        session.execute(text("UPDATE hub_revisions SET used_at = now() - interval '91 days' WHERE team_id = 'team_a'"))
        found = find_revision(session, PUBLIC, "forest/oak", f"{3:040}")
        assert found is not None and found.description.layers == 2
        assert forget_unused_revisions(session, 90) == 2, "those that nobody has used since"


ODD: list[Any] = [None, True, 0, -1, 1e400, "", "\0", "x" * 300, [], [[]], {}, {"": None}, {"a": [1]}, 2**70, [None]]


def poisoned_cards() -> Iterator[dict[str, Any]]:
    """Cards with keys that the library takes for arguments, and with values of another type."""
    for key in ("ignore_metadata_errors", "self", "eval_results", "model-index", "tags", "configs", "datasets", ""):
        for value in ODD:
            yield {key: value}


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_card_of_any_shape_is_read_or_refused_by_name(kind: Any, node: Settings, hub: HubState) -> None:
    hub.add(kind, "forest/oak").commit({"README.md": b"# Oak"})
    refusals = []
    for card in poisoned_cards():
        hub.describe = lambda info, card=card: info | {"cardData": card}  # type: ignore[misc]
        try:
            Hub(node.model_copy(update={"hub_endpoint": hub.endpoint})).listing(kind, "forest/oak", None)
        except SecateurError as error:
            refusals.append(error.code)
    assert len(refusals) >= len(ODD), "what names an argument twice is one that no library takes"
    assert set(refusals) == {f"unusable_{kind}"}


def test_a_search_answered_in_any_shape_finds_nothing_or_what_can_be_read(node: Settings, hub: HubState) -> None:
    settings = node.model_copy(update={"hub_endpoint": hub.endpoint})
    hub.add("model", "forest/oak")
    for answer in (b"[" * 200_000, b"{}", b"\xff", b'[{"id": 1}, {"id": "a/b", "downloads": {}}, null, 7]', b""):
        hub.found = answer
        assert [each.name for each in HubSearch(settings).search("oak")] in ([], ["a/b"])
