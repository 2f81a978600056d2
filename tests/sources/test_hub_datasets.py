"""Datasets of the hub: as a request names them, and as the fetcher brings them. Questions of zero-shot tasks: pinned
when a job is submitted, fetched once, whole rows.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.datasets.image_facts import describe_images
from core.pipeline.messages import ModelSource, TextSource
from core.service.jobs.tables import JobRow
from core.service.sources.hub import Hub
from core.service.sources.hub_datasets import find_hub_dataset
from core.service.sources.references import HubImages, HubText, TaskReference
from core.settings import Settings
from secateur.transport.retries import LONGEST_RETRY_AFTER_SECONDS
from secateur_wire.errors import SecateurError
from tests.chat import add_template, conversation
from tests.image_sets import grays
from tests.sources.conftest import add_wikitext, card, json_lines, parquet, sources_of
from tests.sources.hub_server import HubState
from tests.task_questions import questions, write_questions
from worker.supervisor.inputs import JobInputs

NO_MODEL = ModelSource(path=Path("none"), name="none", revision="none")
TRAIN = [f"training document {number} of many" for number in range(3000)]
TEST = ["", " = A heading = ", "a document to test on"]

Fetch = Callable[..., TextSource]


@pytest.fixture
def fetch(hub: HubState, sources: JobInputs) -> Fetch:
    """Fetches as a worker does what a name means to the API."""

    def bring(
        name: str, use: Any = "calibration", characters: int | None = 50_000, model: ModelSource = NO_MODEL
    ) -> TextSource:
        found = find_hub_dataset(Hub(Settings(hub_endpoint=hub.endpoint)), name, use, "dataset")
        return sources.text(text_of(name, found, use=use, characters=characters), model, "dataset")

    return bring


def text_of(name: str, found: Any, **more: Any) -> HubText:
    facts = {name: getattr(found, name) for name in ("repository", "revision", "config", "split", "is_public")}
    return HubText(name=name, **facts, **more)


def documents(text: TextSource) -> list[str]:
    return [json.loads(line)["text"] for line in text.path.read_text().splitlines()]


def test_wikitext_is_its_training_split_to_calibrate_on_and_its_test_split_to_evaluate_on(
    fetch: Fetch, hub: HubState
) -> None:
    commit = add_wikitext(hub, TRAIN, TEST)
    calibration = fetch("wikitext")
    assert documents(calibration) == TRAIN[: len(documents(calibration))]
    assert 50_000 <= sum(map(len, documents(calibration))) < 50_100  # so many, and no more
    evaluation = fetch("wikitext", "evaluation", None)
    assert documents(evaluation) == TEST[1:]
    assert [text.origin["split"] for text in (calibration, evaluation)] == ["train", "test"]
    assert calibration.origin["revision"] == commit and calibration.origin["config"] == "wikitext-2-raw-v1"
    hub.served.clear()
    assert fetch("wikitext") == calibration and not hub.served


def test_of_c4_only_the_shards_that_are_needed_are_read(fetch: Fetch, hub: HubState) -> None:
    shards = {f"en/c4-train.{number:05d}-of-01024.json.gz": json_lines(TRAIN) for number in range(4)}
    readme = card({"en": {"train": "en/c4-train.*.json.gz", "validation": "en/c4-validation.*.json.gz"}})
    validation = {"en/c4-validation.00000-of-00008.json.gz": json_lines(["to validate on"])}
    hub.add("dataset", "allenai/c4").commit({"README.md": readme, **shards, **validation})
    assert documents(fetch("c4", characters=1000))[0] == TRAIN[0]
    assert [name for name in hub.served if name.startswith("en/")] == [min(shards)]
    assert documents(fetch("c4", "evaluation")) == ["to validate on"]


def test_any_repository_works_whose_text_is_plain_to_see(fetch: Fetch, hub: HubState) -> None:
    hub.add("dataset", "org/songs").commit({"train.parquet": parquet(["la", "li", "lu"], column="lyrics")})
    assert documents(fetch("org/songs")) == ["la", "li", "lu"]
    with pytest.raises(SecateurError) as caught:
        fetch("org/songs", "evaluation")
    problem = caught.value.problem()
    assert problem["code"] == "unknown_dataset" and "org/songs:default:SPLIT" in problem["message"]
    assert documents(fetch("org/songs::train", "evaluation")) == ["la", "li", "lu"]


def test_conversations_are_known_by_their_columns_and_rendered_by_the_models_template(
    fetch: Fetch, hub: HubState, tmp_path: Path
) -> None:
    rows = [conversation(f"question {number}", f"answer {number}") | {"source": "web"} for number in range(30)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    hub.add("dataset", "org/chats").commit({"train.jsonl": content})
    model = ModelSource(path=add_template(tmp_path), name="tiny", revision="r")
    text = fetch("org/chats", "calibration", None, model)
    assert text.rendering is not None and text.rendering.conversations == 30
    assert documents(text)[0].strip() == "w4 question 0 w2 w5 answer 0 w2"
    with pytest.raises(SecateurError, match="the model none has no chat template"):
        fetch("org/chats", "calibration", None)


def labelled(images: list[bytes], labels: list[int]) -> bytes:
    """A Parquet file as the library puts it on the hub."""
    import datasets  # slow to load, and for this alone

    features = datasets.Features(
        {"img": datasets.Image(decode=False), "fine_label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = {"img": [{"bytes": each, "path": None} for each in images], "fine_label": labels}
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(buffer)
    return buffer.getvalue()


def test_a_split_becomes_one_file_of_images_and_named_labels(hub: HubState, sources: JobInputs) -> None:
    shards = [labelled(grays(3), [0, 1, 1]), labelled(grays(2), [1, 0])]
    files = {f"data/train-{number:05d}-of-00002.parquet": shard for number, shard in enumerate(shards)}
    commit = hub.add("dataset", "org/answers").commit(files)
    found = find_hub_dataset(Hub(Settings(hub_endpoint=hub.endpoint)), "org/answers", "calibration", "dataset")
    facts = {name: getattr(found, name) for name in ("repository", "revision", "config", "split", "bytes", "is_public")}
    images = sources.images(HubImages(name="org/answers", use="calibration", **facts), "calibration.dataset")
    described = describe_images(Path(images.path), images.format, sha256=images.sha256)
    assert (described.images, described.class_names) == (5, ["no", "yes"])
    assert images.origin["revision"] == commit and images.origin["split"] == "train"


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"ambiguous.py": b"raise SystemExit", "README.md": b""}, "org/set"),
        ({"train.tar": bytes(10240)}, "org/set"),
        ({"train.parquet": b"PAR1 and no more"}, "org/set"),
        ({"train.jsonl": b'{"question": "q", "answer": "a"}\n'}, "question, answer"),
        ({"train.jsonl": b'{"text": "  "}\n'}, "no text"),
    ],
    ids=["script", "archive", "broken", "two columns", "blank"],
)
def test_what_is_no_text_is_refused_and_no_code_runs(
    fetch: Fetch, hub: HubState, files: dict[str, bytes], word: str
) -> None:
    hub.add("dataset", "org/set").commit(files)
    with pytest.raises(SecateurError) as caught:
        fetch("org/set")
    problem = caught.value.problem()
    assert (problem["code"], problem["retryable"]) == ("unusable_dataset", False), problem
    assert word in problem["message"]


def test_a_small_file_that_unpacks_to_a_terabyte_takes_no_more_memory_than_a_fetcher_may(
    hub: HubState, node: Settings, tmp_path: Path
) -> None:
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 2**18, pyarrow.int32()), ["x" * 2**22])
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "bomb.parquet", store_schema=False)
    hub.add("dataset", "org/bomb").commit({"train.parquet": (tmp_path / "bomb.parquet").read_bytes()})
    found = find_hub_dataset(Hub(node), "org/bomb", "calibration", "dataset")
    text = text_of("org/bomb", found, use="calibration", characters=None)
    limited = node.model_copy(update={"fetch_memory_bytes": 2**30})
    with sources_of(limited) as sources, pytest.raises(SecateurError, match="takes more memory") as refused:
        sources.text(text, NO_MODEL, "dataset")
    assert refused.value.problem()["code"] == "unusable_dataset"


def test_a_request_is_checked_against_what_the_dataset_says_of_itself(
    api: TestClient, hub: HubState, job_body: dict[str, Any], sessions: sessionmaker[Session]
) -> None:
    commit = add_wikitext(hub, TRAIN, TEST)
    hub.add("dataset", "org/gated", gated=True).commit({"train.parquet": parquet(TRAIN)})

    def submit(dataset: str) -> tuple[int, dict[str, Any]]:
        changed = job_body | {"calibration": {"dataset": dataset, "samples": 4, "sequence_length": 16}}
        response = api.post("/v1/jobs", json=changed)
        return response.status_code, response.json()

    for name, code, word in (
        ("Salesforce/wikitext:wikitext-9", "unknown_dataset", "wikitext-2-raw-v1"),
        ("Salesforce/wikitext:wikitext-2-raw-v1:tset", "unknown_dataset", "train, test"),
        ("org/nothing", "unknown_dataset", "org/nothing"),
        ("org/gated", "unusable_dataset", "gated"),
    ):
        status, problem = submit(name)
        assert (status, problem["code"], problem["param"]) == (422, code, "calibration.dataset"), problem
        assert word in problem["detail"]
    status, job = submit("wikitext")
    assert status == 201 and job["calibration"]["dataset"] == "wikitext"
    with transaction(sessions) as session:
        source = session.scalars(select(JobRow.sources)).one()["calibration"]
    assert (source["kind"], source["revision"], source["split"]) == ("hub", commit, "train")
    hub.down = True
    assert submit("Salesforce/wikitext:wikitext-2-raw-v1")[0] == 201  # asked a moment ago
    assert submit("org/other")[1]["code"] == "hub_unavailable"


ROWS = questions("arc_easy", 30)


def rows_as_parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


@pytest.fixture
def commit(hub: HubState) -> str:
    """Of a dataset with the name and the layout of ARC's."""
    return hub.add("dataset", "allenai/ai2_arc").commit(
        {
            "README.md": card({"ARC-Easy": {"test": "ARC-Easy/test-*", "validation": "ARC-Easy/validation-*"}}),
            "ARC-Easy/test-00000-of-00001.parquet": rows_as_parquet(ROWS),
            "ARC-Easy/validation-00000-of-00001.parquet": rows_as_parquet(ROWS[:3]),
        }
    )


def questions_in(source: TextSource) -> list[dict[str, Any]]:
    return [json.loads(line) for line in source.path.read_text().splitlines()]


def test_without_a_hub_tasks_are_refused_at_once_with_what_helps(
    api: TestClient, job_body: dict[str, Any], hub: HubState, settings: Settings
) -> None:
    hub.down = True
    body = job_body | {"evaluation": {"tasks": ["arc_easy", "boolq", "piqa"]}}
    for path in ("/v1/jobs", "/v1/models/inspect"):
        hub.requests.clear()
        answer = api.post(path, json=body)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["param"]) == (503, "hub_unavailable", "evaluation.tasks.0")
        assert "`secateur samples --tasks`" in problem["detail"]
        assert hub.requests and all("ai2_arc" in request for request in hub.requests), "not asked for every task"
        assert int(answer.headers["retry-after"]) > LONGEST_RETRY_AFTER_SECONDS, "no client waits for it"
    for task in ("arc_easy", "boolq", "piqa"):
        write_questions(settings.local_tasks, task)
    assert api.post("/v1/jobs", json=body).status_code == 201


def test_a_job_pins_the_commit_and_a_worker_fetches_the_split_papers_report(
    api: TestClient,
    job_body: dict[str, Any],
    sessions: sessionmaker[Session],
    node: Settings,
    sources: JobInputs,
    hub: HubState,
    commit: str,
) -> None:
    answer = api.post("/v1/jobs", json=job_body | {"evaluation": {"tasks": ["arc_easy"]}})
    assert answer.status_code == 201, answer.text
    with transaction(sessions) as session:
        [task] = [TaskReference.model_validate(each) for each in session.scalars(select(JobRow.sources)).one()["tasks"]]
    hub.repositories["dataset", "allenai/ai2_arc"].commit({"README.md": b"nothing any more"})
    source = sources.questions(task)
    assert questions_in(source) == ROWS
    assert source.origin == {
        "kind": "hub",
        "repository": "allenai/ai2_arc",
        "revision": commit,
        "config": "ARC-Easy",
        "split": "test",
    }
    here = write_questions(node.local_tasks, "arc_easy")
    assert sources.questions(task).path == here.resolve(), "a worker's own copy goes first"
