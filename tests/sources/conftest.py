"""A hub on loopback, a service that uses it, a worker's sources without one, and models and texts to put there."""

import gzip
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.sources.hub_access import HubAccess
from core.settings import Settings
from core.storage import open_store
from tests.sources.hub_server import HubState, lasting_hub_server
from tests.worker.conftest import jobs
from worker.supervisor.fetched_inputs import InputFetcher
from worker.supervisor.inputs import JobInputs

__all__ = ["jobs"]


@pytest.fixture(scope="session")
def renew_hub() -> Iterator[Callable[[HubState], HubState]]:
    """One server for all tests; each gives it a state of its own."""
    with lasting_hub_server() as renew:
        yield renew


@pytest.fixture
def hub(renew_hub: Callable[[HubState], HubState]) -> HubState:
    return renew_hub(HubState())


@pytest.fixture(scope="module")
def node(renew_hub: Callable[[HubState], HubState], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a worker for all tests of a module, without a database."""
    home = tmp_path_factory.mktemp("node") / "home"
    return Settings(home=home, hub_endpoint=renew_hub(HubState()).endpoint, hub_patience_seconds=60.0)


@pytest.fixture(scope="module")
def sources(node: Settings) -> Iterator[JobInputs]:
    """Yield an attempt's sources: one fetcher and one cache for all tests of a module."""
    with sources_of(node) as opened:
        yield opened


@contextmanager
def sources_of(node: Settings) -> Iterator[JobInputs]:
    access = HubAccess(team_id="team_a")
    fetcher = InputFetcher(
        node, node.work_root, team_id=access.team_id, on_message=lambda message: None, on_wait=lambda: None
    )
    with JobInputs(
        fetcher,
        open_store(node),
        find_access=lambda: access,
        write_text=lambda spec: pytest.fail(f"nothing to run: {spec}"),
    ) as opened:
        yield opened


@pytest.fixture
def settings(settings: Settings, hub: HubState) -> Settings:
    return settings.model_copy(
        update={
            "home": settings.home.resolve(),
            "hub_endpoint": hub.endpoint,
            "hub_patience_seconds": 2.0,
            "lease_renew_seconds": 0.2,
            "retry_delay_seconds": 0.0,
            "cancel_grace_seconds": 2.0,
            "threads": 1,
            "device": "cpu",
        }
    )


def parquet(texts: list[str], column: str = "text") -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({column: texts}), buffer, row_group_size=100)
    return buffer.getvalue()


def json_lines(texts: list[str]) -> bytes:
    return gzip.compress("".join(json.dumps({"text": text, "url": "u"}) + "\n" for text in texts).encode())


def card(configs: dict[str, dict[str, str]]) -> bytes:
    """A dataset's README that says which files belong to which configuration and split."""
    listed = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in splits.items()]}
        for name, splits in configs.items()
    ]
    return f"---\n{json.dumps({'configs': listed})}\n---\n".encode()


def add_wikitext(hub: HubState, train: list[str], test: list[str]) -> str:
    """The commit of a dataset with the name and the layout of WikiText."""
    name = "wikitext-2-raw-v1"
    return hub.add("dataset", "Salesforce/wikitext").commit(
        {
            "README.md": card({name: {"train": f"{name}/train-*", "test": f"{name}/test-*"}}),
            f"{name}/train-00000-of-00001.parquet": parquet(train),
            f"{name}/test-00000-of-00001.parquet": parquet(test),
        }
    )


def folder_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_wordy_model(folder: Path, *, seed: int = 0, **how: Any) -> Path:
    """A Llama of two layers whose words are w0 to w95, with its tokenizer; `how`: its dtype and sizes."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from tests.engine.tiny import make_model

    make_model(folder, seed=seed, **({"num_hidden_layers": 2} | how))
    words: Any = Tokenizer(models.WordLevel({f"w{number}": number for number in range(96)}, unk_token="w3"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


def stored_rows(sessions: sessionmaker[Session]) -> list[str]:
    """Every row of every table, as text; bytes as the characters they are where they are ASCII."""
    with transaction(sessions) as session:
        session.execute(text("SET LOCAL bytea_output = 'escape'"))
        tables = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        rows = [row for table in tables for row in session.scalars(text(f'SELECT t::text FROM "{table}" AS t'))]
    assert any("gAAAA" in row for row in rows)  # what is sealed is among them
    return rows
