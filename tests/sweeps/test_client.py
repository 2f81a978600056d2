"""Sweeps through the client and the command line, against the real service."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from secateur import Client, errors
from tests.client.command_line import RunHere
from tests.sweeps.conftest import Sweeps


@pytest.fixture
def service(live_api: httpx.Client) -> Iterator[Client]:
    key = live_api.headers["Authorization"].removeprefix("Bearer ")
    with Client(str(live_api.base_url), key) as client:
        yield client


def test_a_sweep_is_submitted_once_cancelled_resumed_and_read(
    service: Client,
    sweeps: Sweeps,
    grid_body: dict[str, Any],
) -> None:
    sweep = service.submit_sweep(idempotency_key="once", **grid_body)
    assert service.submit_sweep(idempotency_key="once", **grid_body).id == sweep.id
    assert [each.id for each in service.sweeps()] == [sweep.id] and not list(service.sweeps(status="failed"))
    assert service.cancel_sweep(sweep.id).status == "cancelled"
    assert service.resume_sweep(sweep.id).status == "running"
    sweeps.finish(sweep.id)
    told: list[str] = []
    assert service.wait_sweep(sweep.id, on_change=lambda now: told.append(now.status)).status == "succeeded"
    assert told == ["succeeded"]
    results = service.sweep_results(sweep.id, cost="bytes")
    assert results.trade_off["cost"] == "bytes" and len(results.points) == 6
    assert {best.objective for best in results.best} >= {"min_parameters", "min_perplexity"}
    with pytest.raises(errors.Conflict):
        service.cancel_sweep(sweep.id)
    with pytest.raises(errors.InvalidRequest, match="sparsity"):
        service.submit_sweep(**grid_body | {"grid": {"method": ["wanda"], "sparsity": [1.5]}})
    with pytest.raises(errors.NotFound):
        service.sweep("swp_none")


def test_the_commands_run_list_show_and_cancel(
    here: RunHere,
    sweeps: Sweeps,
    model: str,
    dataset: str,
) -> None:
    texts = f"--calibration {dataset} --calibration-samples 8 --sequence-length 32 --evaluation {dataset}".split()
    run = ("sweep", "run", "--model", model, *texts)
    varied = ("--method", "magnitude", "--method", "wanda", "--sparsity", "0.5")
    started = here(*run, *varied, "--name", "both", "--json").json
    assert started["points"]["total"] == 2 and started["grid"] == {"method": ["magnitude", "wanda"], "sparsity": [0.5]}
    sweeps.finish(started["id"])
    shown = here("sweep", "show", started["id"])
    assert shown.code == 0 and "magnitude · 50%" in shown.out and "min_perplexity" in shown.out
    assert here("sweep", "show", started["id"], "--json").json["object"] == "sweep_results"
    assert "both" in here("sweeps").out and len(here("sweeps", "--json").json) == 1
    searched = ("--search", "min_parameters", "--subject-to", "max_perplexity_ratio=1.5", "--max-jobs", "9")
    search = here(*run, "--method", "wanda", *searched, "--json").json
    assert search["search"]["subject_to"]["max_perplexity_ratio"] == 1.5 and search["points"]["total"] == 17
    assert "is cancelled" in here("sweep", "cancel", search["id"]).out
    assert "is running" in here("sweep", "resume", search["id"]).out


def test_a_sweep_in_a_file_is_waited_for_and_its_end_is_the_exit_code(
    here: RunHere,
    sweeps: Sweeps,
    search_body: dict[str, Any],
    tmp_path: Path,
) -> None:
    search = search_body["search"] | {"subject_to": {"max_perplexity_ratio": 1.01}, "sparsities": [0.5]}
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps(search_body | {"search": search}))
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            sweeps.advance()
            sweeps.work()
            stop.wait(0.05)

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        waited = here("sweep", "run", str(file), "--wait")
    finally:
        stop.set()
        serving.join()
    assert waited.code == 3 and "No measured model is within the limits" in waited.out
    assert "failed: 3 of 3" in waited.err
    ended = here("sweep", "run", str(file), "--model", "tiny")
    assert ended.code == 2 and "FILE gives the whole sweep" in ended.err
    file.write_text("[]")
    assert here("sweep", "run", str(file)).code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--method wanda", "--model"),
        ("--model tiny", "--method"),
        ("--model tiny --method wanda --max-jobs 3", "need --search"),
        ("--model tiny --method wanda --grid parameters.block_size=64", "write PATH=LIST"),
        ("--model tiny --method wanda --search min_bytes --subject-to max_bytes_ratio", "write LIMIT=VALUE"),
    ],
)
def test_options_that_cannot_be_meant_are_named(here: RunHere, arguments: str, said: str) -> None:
    ended = here("sweep", "run", *arguments.split())
    assert ended.code == 2 and said in ended.err
