"""The cost of a submission, in what many clients at once wait for each other for."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import anyio.to_thread
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

from api.state import ApiState

PLAIN = {"method": "magnitude", "sparsity": 0.5}


def test_a_submission_takes_few_statements_two_transactions_and_three_threads(api: TestClient, model: str) -> None:
    assert isinstance(api.app, FastAPI)
    state: ApiState = api.app.state.api
    body: dict[str, Any] = {"model": model, **PLAIN}
    assert api.post("/v1/jobs", json=body).status_code == 201  # the key's use is written down once a minute
    with counted(state.sessions.kw["bind"]) as counts:
        assert api.post("/v1/jobs", json=body).status_code == 201
        assert api.post("/v1/jobs", json=body, headers={"Idempotency-Key": "once"}).status_code == 201
    assert counts == {"statements": 10 + 10, "transactions": 2 + 2, "hops": 3 + 3}


@contextlib.contextmanager
def counted(engine: Engine) -> Iterator[Counter[str]]:
    """Count an engine's transactions, their statements without BEGIN and COMMIT, and changes from the event loop to a
    thread and back (hops).
    """
    counts: Counter[str] = Counter()
    hop: Callable[..., Any] = anyio.to_thread.run_sync

    def count_transaction(_connection: object) -> None:
        counts["transactions"] += 1

    def count_statement(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        counts["statements"] += not statement.startswith("BEGIN")

    async def counted_hop(*arguments: Any, **options: Any) -> Any:
        counts["hops"] += 1
        return await hop(*arguments, **options)

    listeners: dict[str, Callable[..., Any]] = {"begin": count_transaction, "after_cursor_execute": count_statement}
    for name, listener in listeners.items():
        event.listen(engine, name, listener)
    try:
        with patch.object(anyio.to_thread, "run_sync", counted_hop):
            yield counts
    finally:
        for name, listener in listeners.items():
            event.remove(engine, name, listener)
