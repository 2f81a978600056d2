"""What pipelines read of how a job ended."""

from pathlib import Path
from typing import Any

import pytest
from junitparser import Error, Failure, JUnitXml

from secateur import Report, summarise
from secateur.jobs import Job
from tests.client.command_line import RunHere
from tests.client.script import JOB_ID, Script, job, life

MISSED = {
    "code": "gate_missed",
    "message": "the latency ratio is 0.9; the gate allows 0.5",
    "param": "gates.max_latency_ratio",
    "retryable": False,
}
LOST = {"code": "out_of_memory", "message": "8 GB \x1b were | not `enough`", "param": None, "retryable": False}
RUNNING: dict[str, Any] = {"status": "running", "finished_at": None, "metrics": None}
ROWS: list[dict[str, Any]] = [
    {"gate": "max_perplexity_ratio", "limit": 2.4, "figure": 2.248, "on": "articles", "kept": True, "message": "kept"},
    {"gate": "max_bytes", "limit": 500_000_000, "figure": 269_060_552, "on": None, "kept": True, "message": "kept"},
    {"gate": "max_latency_ratio", "limit": 0.5, "figure": 0.9, "on": None, "kept": False, "message": MISSED["message"]},
]
LIMITS = {"max_perplexity_ratio": 2.4, "max_bytes": 500_000_000, "max_latency_ratio": 0.5, "max_parameters": None}


@pytest.fixture
def missed(script: Script) -> Script:
    """A server whose job missed one of three gates."""
    script.job = job(status="failed", error=MISSED, gates=LIMITS)
    script.report = {"gates": {"missed": MISSED["message"], "rows": ROWS, **LIMITS}}
    script.events = life("failed")
    return script


def test_the_document_has_job_figures_gates_and_links(scripted: RunHere, missed: Script, url: str) -> None:
    found = scripted("summary", JOB_ID, "--json")
    assert found.code == 0
    told = found.json
    assert (told["outcome"], told["exit_code"]) == ("gate_missed", 3)
    assert (told["job"]["id"], told["job"]["error"]["code"]) == (JOB_ID, "gate_missed")
    assert told["gates"] == [{"margin": 0.0} | row for row in ROWS], "an older server told of no margin"
    figures = {(each["figure"], each["on"]): each for each in told["figures"]}
    assert figures["perplexity", "articles"]["ratio"] == 2.248
    assert figures["bytes", None]["unit"] == "bytes" and figures["bytes", None]["pruned"] == 269060552
    assert told["links"]["page"] == f"{url}/portal/jobs/{JOB_ID}"
    assert told["links"]["artifacts"] == f"{url}/v1/jobs/{JOB_ID}/artifacts"


@pytest.mark.parametrize("command", [("watch", JOB_ID), ("submit", "m", "--method", "wanda", "--wait")])
def test_the_end_is_written_where_it_is_waited_for_and_the_code_is_3(
    scripted: RunHere, missed: Script, tmp_path: Path, command: tuple[str, ...]
) -> None:
    files = {name: tmp_path / f"end.{name}" for name in ("summary", "markdown", "junit")}
    done = scripted(*command, *(f"--{name}={file}" for name, file in files.items()))
    assert done.code == 3
    assert files["summary"].read_text() == scripted("summary", JOB_ID, "--json").out
    assert files["markdown"].read_text() == scripted("summary", JOB_ID).out
    again = tmp_path / "again.xml"
    assert scripted("summary", JOB_ID, "--junit", str(again), "--exit-code").code == 3
    assert again.read_text() == files["junit"].read_text()


def test_a_test_report_has_a_case_for_each_gate(missed: Script) -> None:
    summary = summarise(Job.model_validate(missed.job), Report.model_validate(missed.report), url="http://server")
    (suite,) = JUnitXml.fromstring(summary.junit())
    assert (suite.tests, suite.failures, suite.errors, suite.time) == (3, 1, 0, 80.0)
    results = {case.name: case.result for case in suite}
    assert results["max_perplexity_ratio on articles"] == [] == results["max_bytes"]
    (failure,) = results["max_latency_ratio"]
    assert isinstance(failure, Failure) and failure.message == MISSED["message"]
    properties = {each.name: each.value for each in suite.properties()}
    assert properties["job"] == JOB_ID and properties["metadata.commit"] == "abc"
    assert properties["perplexity on articles, pruned"] == "56.2"
    assert properties["link.page"] == f"http://server/portal/jobs/{JOB_ID}"


@pytest.mark.parametrize(
    ("changes", "outcome", "code", "said"),
    [
        ({}, "passed", 0, "✓ smollm2-135m, wanda unstructured 50.00%: succeeded"),
        (
            {"status": "failed", "error": LOST},
            "failed",
            1,
            r"failed: 8 GB \\u001b were \| not \`enough\` (out\_of\_memory)",
        ),
        ({"status": "cancelled"}, "cancelled", 1, "cancelled"),
        (RUNNING, "unfinished", 1, "### … smollm2-135m, wanda unstructured 50.00%: still running"),
    ],
)
def test_without_gates_the_job_itself_is_the_case(
    scripted: RunHere, script: Script, tmp_path: Path, changes: dict[str, Any], outcome: str, code: int, said: str
) -> None:
    script.job = job(**changes)
    file = tmp_path / "gates.xml"
    done = scripted("summary", JOB_ID, "--exit-code", "--junit", str(file))
    assert done.code == code and said in done.out.splitlines()[0]
    assert ("| dense |" in done.out) is ("metrics" not in changes)
    (suite,) = JUnitXml.fromfile(str(file))
    (case,) = suite
    if outcome == "passed":
        assert case.name == "job" and case.result == []
    else:
        (error,) = case.result
        assert isinstance(error, Error) and (suite.tests, suite.errors) == (1, 1)
    assert scripted("summary", JOB_ID, "--json").json["outcome"] == outcome


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("submit m --method wanda --junit gates.xml", "--wait"),
        (f"watch {JOB_ID} --summary /nowhere/end.json", "/nowhere"),
    ],
)
def test_where_a_summary_cannot_be_written_is_said_before_anything_runs(
    scripted: RunHere, script: Script, arguments: str, said: str
) -> None:
    done = scripted(*arguments.split())
    assert (done.code, done.out) == (2, "") and said in done.err
    assert not script.seen


def test_a_script_is_told_the_id_alone_and_says_the_key_of_its_run(scripted: RunHere, script: Script) -> None:
    done = scripted("submit", "m", "--method", "wanda", "--id", "--idempotency-key", "run-7")
    assert (done.code, done.out, done.err) == (0, f"{JOB_ID}\n", "")
    assert script.requests("POST", "/v1/jobs")[0].headers["idempotency-key"] == "run-7"
    script.events = life("succeeded")
    assert scripted("submit", "m", "--method", "wanda", "--id", "--wait").out == f"{JOB_ID}\n"
