import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from secateur_wire.job_options import body_of
from tests.client.command_line import COMMAND, RunHere, environment, secateur
from tests.client.script import JOB_ID, MOMENT, Script, job, life, model, problem

GATE_MISSED = {
    "code": "gate_missed",
    "message": "Perplexity rose 2.5 times; the job allows 2.4 times.",
    "param": "gates.max_perplexity_ratio",
    "retryable": False,
}
OUT_OF_MEMORY = {"code": "out_of_memory", "message": "8 GB were not enough", "param": None, "retryable": False}


@pytest.mark.parametrize(
    ("job_changes", "code"),
    [
        ({}, 0),
        ({"status": "failed", "error": OUT_OF_MEMORY}, 1),
        ({"status": "cancelled"}, 1),
        ({"status": "failed", "error": GATE_MISSED}, 3),
    ],
)
def test_the_exit_code_says_how_the_job_ended(
    scripted: RunHere, script: Script, job_changes: dict[str, Any], code: int
) -> None:
    script.job = job(**job_changes)
    script.events = life(script.job["status"])
    waited = scripted("submit", "m", "--method", "wanda", "--sparsity", "0.5", "--wait", "--json")
    watched = scripted("watch", JOB_ID)
    assert (waited.code, watched.code) == (code, code)
    assert waited.json == script.job
    if code:
        why = (script.job["error"] or {"message": "was cancelled"})["message"]
        assert why in waited.err and why in watched.err


def test_submit_sends_exactly_what_was_said(scripted: RunHere, script: Script) -> None:
    options = (
        "--method sparsegpt --pattern 2:4 --parameter block_size=64 --parameter skip_layers=[0,1] --parameter scope=row"
        " --parameter variant=true --calibration texts --calibration-samples 32 --calibration-generated 16"
        " --sequence-length 512 --seed 7"
        " --evaluation articles --evaluation books --evaluation-samples all --max-perplexity-ratio 2.4"
        " --task boolq --task arc_easy --task-limit 100 --num-fewshot 2"
        " --recovery lora --recovery-steps 200 --recovery-dataset books --recovery-parameter learning_rate=1e-4"
        " --prompt Once --prompt upon --prompt-tokens 16"
        ' --recovery-parameter lora={"r":16} --recovery-parameter schedule=linear'
        " --max-task-accuracy-drop 0.02 --max-latency-ratio 0.9 --max-bytes 1000 --max-bytes-ratio 0.7"
        " --max-parameters 500 --max-export-kl 0.01 --export gguf:F16,Q8_0"
        " --metadata commit=a=b --metadata run=1 --queue large --priority 5 --format packed --time-limit 600"
    )
    done = scripted("submit", "smollm2-135m", *options.split())
    assert done.code == 0, done.err
    assert f"secateur watch {JOB_ID}" in done.out
    assert script.requests("POST", "/v1/jobs")[0].body == {
        "model": "smollm2-135m",
        "method": "sparsegpt",
        "pattern": "2:4",
        "parameters": {"block_size": 64, "skip_layers": [0, 1], "scope": "row", "variant": True, "seed": 7},
        "calibration": {"dataset": "texts", "samples": 32, "sequence_length": 512, "seed": 7, "generated": 16},
        "evaluation": {
            "datasets": ["articles", "books"],
            "samples": None,
            "sequence_length": 512,
            "tasks": ["boolq", "arc_easy"],
            "task_limit": 100,
            "num_fewshot": 2,
            "prompts": ["Once", "upon"],
            "prompt_tokens": 16,
        },
        "recovery": {
            "method": "lora",
            "steps": 200,
            "dataset": "books",
            "learning_rate": 1e-4,
            "lora": {"r": 16},
            "schedule": "linear",
        },
        "gates": {
            "max_perplexity_ratio": 2.4,
            "max_task_accuracy_drop": 0.02,
            "max_latency_ratio": 0.9,
            "max_bytes": 1000,
            "max_bytes_ratio": 0.7,
            "max_parameters": 500,
            "max_export_kl": 0.01,
        },
        "metadata": {"commit": "a=b", "run": "1"},
        "queue": "large",
        "priority": 5,
        "time_limit_seconds": 600.0,
        "output": {"format": "packed", "exports": [{"format": "gguf", "types": ["F16", "Q8_0"]}]},
    }
    scripted("submit", "m", "--method", "magnitude", "--sparsity", "0")
    assert script.requests("POST", "/v1/jobs")[1].body == {"model": "m", "method": "magnitude", "sparsity": 0.0}
    scripted("submit", "m", "--method", "frontier", "--target", "decode_ratio=0.65", "--target", "engine=llama-cpp")
    assert script.requests("POST", "/v1/jobs")[-1].body["target"] == {"decode_ratio": 0.65, "engine": "llama-cpp"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("submit --method wanda", "--body FILE"),
        ("submit --body /nowhere/job.json", "/nowhere/job.json"),
        ("submit m --method wanda --sparsity much", "--sparsity"),
        ("submit m --method wanda --parameter block_size", "NAME=VALUE"),
        ("submit m --method wanda --parameter a=1 --parameter a=2", "given twice"),
        ("submit m --method wanda --calibration-samples 8", "--calibration"),
        ("methods alchemy", "alchemy"),
    ],
)
def test_usage_errors_exit_with_2_and_name_the_fault(
    scripted: RunHere, script: Script, arguments: str, said: str
) -> None:
    script.answers["GET /v1/methods"] = JSONResponse({"data": [], "has_more": False, "next_after": None})
    done = scripted(*arguments.split())
    assert (done.code, done.out) == (2, "") and said in done.err
    assert not script.requests("POST", "/v1/jobs")


def test_an_inspection_waits_for_a_discovery_and_says_so(
    scripted: RunHere, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secateur.operations.planning.LOOK_SECONDS", 0)
    discovery = {"id": "discovery_a", "architecture": "AlienForCausalLM", "transformers_version": "5", "error": None}
    discovery |= {"state": "waiting", "created_at": MOMENT, "started_at": None, "finished_at": None}
    script.passing["POST /v1/models/inspect"] = [JSONResponse(discovery, 202)]
    script.passing["GET /v1/discoveries/discovery_a"] = [JSONResponse(discovery | {"state": "running"})]
    script.answers["GET /v1/discoveries/discovery_a"] = JSONResponse(discovery | {"state": "failed"})
    script.answers["POST /v1/models/inspect"] = problem(422, "unsupported_architecture", "no blocks", "model")
    done = scripted("inspect", "m")
    assert (done.code, done.out) == (2, "") and "no blocks (unsupported_architecture" in done.err
    assert [line for line in done.err.splitlines() if "AlienForCausalLM" in line] == [
        "secateur: examining AlienForCausalLM: waiting for a worker",
        "secateur: examining AlienForCausalLM: a worker is examining it",
    ]


@pytest.mark.parametrize(("status", "code"), [(401, 2), (404, 2), (409, 2), (422, 2), (500, 1), (503, 1)])
def test_what_the_server_refuses_is_told_on_stderr(scripted: RunHere, script: Script, status: int, code: int) -> None:
    script.answers["POST /v1/jobs"] = problem(status, "invalid_sparsity", "1.5 is not in [0, 1)", "sparsity")
    done = scripted("submit", "m", "--method", "wanda", "--sparsity", "1.5", "--json")
    assert (done.code, done.out) == (code, "")
    key = " (the key sct_… from SECATEUR_API_KEY)" if status == 401 else ""
    assert f"secateur: --sparsity: 1.5 is not in [0, 1){key} (invalid_sparsity, HTTP {status})\n" in done.err


def test_without_a_server_one_learns_how_to_start_it() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = secateur(f"http://127.0.0.1:{unused.getsockname()[1]}", "jobs")
    assert done.code == 1 and "secateur serve" in done.err and "Traceback" not in done.err


def test_without_a_key_one_learns_where_to_find_it(url: str) -> None:
    done = secateur(url, "jobs", key="")
    assert done.code == 2 and "SECATEUR_API_KEY" in done.err


def test_json_is_one_document_whatever_else_happens(scripted: RunHere, script: Script) -> None:
    script.models, script.jobs = [model("m")], [job(), job(id="job_2")]
    script.report = {"layers": [{"name": "q", "sparsity": 0.5}], "notes": ["n"], "seeds": {"run": 0}}
    script.events = life("succeeded")
    script.event_cuts = [500]
    assert scripted("models", "--json").json == script.models
    assert scripted("jobs", "--json", "--limit", "1").json == script.jobs[:1]
    assert scripted("show", JOB_ID, "--json").json == script.job
    assert scripted("watch", JOB_ID, "--json").json == script.job
    assert scripted("report", JOB_ID, "--json").json == script.report
    assert scripted("cancel", JOB_ID, "--json").json["status"] == "cancelling"


def test_a_job_is_shown_in_words(scripted: RunHere, script: Script) -> None:
    script.job = job(status="failed", error=GATE_MISSED)
    shown = scripted("show", JOB_ID)
    assert shown.code == 0
    for text in ("perplexity on articles", "56.2", "× 2.25", "134.5 M", "50.00%", "80.0 s", "1.0 GB", "commit=abc"):
        assert text in shown.out
    assert str(GATE_MISSED["message"]) in shown.out


def test_an_interrupted_watch_leaves_the_job_and_says_so(url: str, script: Script) -> None:
    script.events = life("succeeded")[:4]
    script.stays_open = True
    with subprocess.Popen(
        ["env", "--default-signal=INT", COMMAND, "submit", "m", "--method", "wanda", "--wait"],
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not script.requests("GET", f"/v1/jobs/{JOB_ID}/events"):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"secateur cancel {JOB_ID}" in err and "Traceback" not in err
    assert not script.requests("POST", f"/v1/jobs/{JOB_ID}/cancel")


def test_added_files_are_downloaded_alone(scripted: RunHere, script: Script, tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    script.files = {f"model-{each}.gguf": b"x" for each in ("F16", "Q8_0")} | {"secateur.json": b"{}"}
    exports = [{"file": f"model-{each}.gguf", "format": "gguf", "type": each, "bytes": 1} for each in ("F16", "Q8_0")]
    script.job = job(metrics={"exports": exports})
    done = scripted("download", JOB_ID, str(folder), "--format", "gguf", "--type", "Q8_0")
    assert done.code == 0 and [each.name for each in folder.iterdir()] == ["model-Q8_0.gguf"]
    everything = scripted("download", JOB_ID, str(folder), "--format", "gguf", "--json").json
    assert [each["path"] for each in everything["files"]] == ["model-F16.gguf", "model-Q8_0.gguf"]
    lacking = scripted("download", JOB_ID, str(folder), "--format", "gguf", "--type", "Q4_K_M")
    assert lacking.code and "no gguf of Q4_K_M; it has gguf of F16, Q8_0" in " ".join(lacking.err.split())


def test_a_bad_download_fails_and_leaves_no_file(scripted: RunHere, script: Script, tmp_path: Path) -> None:
    script.files = {"model.safetensors": b"x" * 5000}
    script.listed = {"model.safetensors": {"sha256": "0" * 64}}
    done = scripted("download", JOB_ID, str(tmp_path / "artifact"))
    assert done.code == 1 and "model.safetensors" in done.err
    assert not (tmp_path / "artifact" / "model.safetensors").exists()
    (tmp_path / "file").touch()
    done = scripted("download", JOB_ID, str(tmp_path / "file"))
    assert done.code == 1 and str(tmp_path / "file") in done.err and "Traceback" not in done.err


def test_questions_to_answer_are_an_object_within_the_evaluation() -> None:
    given = {"--answers": ["a", "b"], "--answer-samples": "all", "--answer-tokens": 64, "--answer-check": "number"}
    answers = {"datasets": ["a", "b"], "samples": None, "max_new_tokens": 64, "check": "number"}
    assert body_of(given) == {"evaluation": {"answers": answers}}
    with pytest.raises(ValueError, match="--answer-tokens needs --answers NAME"):
        body_of({"--answer-tokens": 4})
