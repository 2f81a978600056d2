"""Whole jobs on models and texts from elsewhere: with the product's own runner, on nodes that share only database and
store; and fetches that are cancelled, drained or given up.
"""

from pathlib import Path

import numpy
import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.settings import Settings
from core.storage import artifact_prefix
from tests.sources.conftest import add_wikitext, write_wordy_model
from tests.sources.fleet import Fleet
from tests.sources.hub_server import HubState
from tests.stored import put
from tests.stores.conftest import s3_endpoint, s3_service, s3_settings
from tests.worker.conftest import start_worker
from worker.runner.client import RUNNER

__all__ = ["s3_endpoint", "s3_service", "s3_settings", "start_worker"]


@pytest.fixture
def in_bucket(settings: Settings, s3_settings: Settings) -> Settings:
    """The service with its store in a bucket."""
    names = [name for name in Settings.model_fields if name.startswith("store_")]
    return settings.model_copy(update={name: getattr(s3_settings, name) for name in names})


@pytest.fixture
def texts(hub: HubState) -> str:
    """The commit of a dataset the wordy model can read."""
    generator = numpy.random.default_rng(0)
    passages = [" ".join(f"w{word}" for word in generator.integers(4, 96, 50)) for _ in range(60)]
    return add_wikitext(hub, passages[:40], passages[40:])


@pytest.fixture
def commit(hub: HubState, tmp_path: Path) -> str:
    """Of the wordy model on the hub."""
    return hub.add("model", "org/wordy").commit_folder(write_wordy_model(tmp_path / "wordy"))


def test_a_model_and_texts_of_the_hub_end_to_end(
    settings: Settings,
    sessions: sessionmaker[Session],
    team: str,
    hub: HubState,
    texts: str,
    commit: str,
) -> None:
    fleet = Fleet(settings, sessions, team, settings.home)
    body = {
        "model": "org/wordy", "method": "wanda", "sparsity": 0.5,
        "calibration": {"dataset": "wikitext", "samples": 8, "sequence_length": 32},
        "evaluation": {"datasets": ["wikitext", "self"], "samples": 4, "sequence_length": 32},
    }  # fmt: skip
    job_id = fleet.submit(**body)
    assert fleet.work("node", RUNNER) == "succeeded", fleet.queue.job(job_id).error
    report = fleet.queue.report(job_id)
    assert report["model"]["revision"] == commit and report["recipe"]["model"] == f"org/wordy@{commit}"
    calibration, evaluation = report["texts"]["calibration"], report["texts"]["evaluation"]
    assert (calibration["revision"], calibration["split"]) == (texts, "train")
    assert (evaluation["wikitext"]["split"], evaluation["self"]["kind"]) == ("test", "self")
    assert evaluation["self"]["model_revision"] == commit and len(evaluation["self"]["sha256"]) == 64
    metrics = fleet.queue.job(job_id).metrics or {}
    assert set(metrics["perplexity"]) == {"wikitext", "self"}
    # On its own text a model is as sure as its entropy lets it be, and surer than on words drawn at random.
    assert metrics["perplexity"]["self"]["dense"] < metrics["perplexity"]["wikitext"]["dense"]
    assert fleet.wrote(job_id) and any("fetching org/wordy" in line for line in fleet.queue.logs(job_id))
    hub.served.clear()
    again = fleet.submit(**report["recipe"])
    assert fleet.work("node") == "succeeded", fleet.queue.job(again).error
    assert not hub.served and not fleet.wrote(again)


def test_nodes_share_through_a_bucket_what_one_wrote(
    in_bucket: Settings, sessions: sessionmaker[Session], team: str, commit: str, tmp_path: Path
) -> None:
    fleet = Fleet(in_bucket, sessions, team, tmp_path)
    on_itself = {
        "model": "org/wordy", "method": "wanda", "sparsity": 0.5,
        "calibration": {"dataset": "self", "samples": 8, "sequence_length": 32},
    }  # fmt: skip
    wrote = []
    for node, seed in (("one", 0), ("two", 0), ("one", 1)):
        body = {**on_itself, "calibration": {**on_itself["calibration"], "seed": seed}}
        job_id = fleet.submit(**body)
        assert fleet.work(node) == "succeeded", fleet.queue.job(job_id).error
        wrote.append(fleet.wrote(job_id))
    assert wrote == [True, False, True]


def test_a_packed_artifact_in_a_bucket_is_a_model_for_the_next_job(
    in_bucket: Settings, sessions: sessionmaker[Session], team: str, hub: HubState, commit: str, tmp_path: Path
) -> None:
    fleet = Fleet(in_bucket, sessions, team, tmp_path)
    first = fleet.submit(model="org/wordy", method="magnitude", sparsity=0.5, output={"format": "packed"})
    assert fleet.work("one") == "succeeded", fleet.queue.job(first).error
    packed = [name for name in fleet.queue.artifact_names(first) if name.endswith(".safetensors")]
    assert packed == ["model.packed.safetensors"]
    chained = {"model": f"job:{first}", "method": "magnitude", "sparsity": 0.7}
    second = fleet.submit(**chained)
    assert fleet.work("two") == "succeeded", fleet.queue.job(second).error
    entries = (tmp_path / "two" / "cache" / "entries").rglob("model.safetensors")
    original = hub.repositories["model", "org/wordy"].commits[commit]["model.safetensors"]
    assert [entry.read_bytes() for entry in entries] == [original]
    put(fleet.queue.store, artifact_prefix(first, 1), packed[0], b"something else")
    third = fleet.submit(**chained)
    assert fleet.work("two") == "succeeded"  # what the node has is still what was stored
    assert fleet.queue.job(third).error is None
    fleet.submit(**chained)
    assert fleet.work("three") == "queued"  # damaged on its way, as far as a worker can tell
    fleet.queue.store.delete(artifact_prefix(first, 1))
    assert fleet.work("three") == "failed"
