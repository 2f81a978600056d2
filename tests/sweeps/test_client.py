"""Sweeps through the client and the command line, against the real service."""

import json
import threading
from pathlib import Path
from typing import Any

from tests.client.command_line import RunHere
from tests.sweeps.conftest import Sweeps


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
