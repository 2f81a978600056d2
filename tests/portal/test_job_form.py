"""A job body as fields, back again, and as commands: nothing is lost or changed on the way."""

import json
import subprocess
from typing import Any

import pytest
from starlette.datastructures import FormData
from typer.testing import CliRunner

from api.portal.forms.job import form_of, minimal, read_body
from api.portal.session import Form, read_form
from api.portal.views.reproduce import commands_for
from core.service.jobs.schemas import JobBody
from secateur import Client
from secateur.cli import app
from secateur_wire.errors import InvalidRequest

_TEXT = {"dataset": "numbers", "samples": 8, "sequence_length": 32}
BODIES: list[dict[str, Any]] = [
    {
        "model": 'it\'s <b>"odd"</b> $HOME `x`',
        "method": "sparsegpt",
        "sparsity": 0.25,
        "parameters": {"allocation": [0.25, 0.25], "skip_modules": ["down_proj", "a b"], "include_lm_head": True},
        "calibration": {**_TEXT, "seed": 3},
        "evaluation": {"datasets": ["numbers"], "sequence_length": 32, "tasks": ["piqa"], "task_limit": 10},
        "metadata": {"commit": "abc", "note": "a = b; 'c'"},
    },
    {
        "model": "tiny",
        "method": "magnitude",
        "target": {"parameters": 100_000_000},
        "parameters": {"allocation": "job:abc", "scope": "row", "seed": 5},
        "evaluation": {"datasets": ["a", "org/b:c"], "samples": 4, "sequence_length": 64},
        "gates": {"max_perplexity_ratio": 1.5, "max_latency_ratio": 0.9, "max_bytes": 10**8, "max_bytes_ratio": 0.5},
        "output": {"format": "packed", "exports": [{"format": "gguf", "types": ["F16", "Q8_0"]}]},
        "queue": "large",
        "priority": -5,
        "time_limit_seconds": 60.5,
    },
    {
        "model": "tiny",
        "method": "bonsai",
        "sparsity": 0.2,
        "parameters": {"budget": "quick", "masks_per_round": 200},
        "calibration": _TEXT,
        "recovery": {
            "method": "lora",
            "lora": {"r": 16, "targets": ["down_proj"]},
            "stages": [{"datasets": ["a"], "steps": 5}],
            "train_embeddings": True,
            "minutes": 2.5,
        },
        "metadata": {"two": "lines\nof text"},
    },
]


@pytest.mark.parametrize("body", BODIES, ids=[body["method"] for body in BODIES])
def test_a_body_is_the_same_through_the_form(body: dict[str, Any]) -> None:
    sent = FormData([(name, value) for name, values in form_of(body).lists.items() for value in values])
    assert read_body(read_form(sent.multi_items())) == body
    assert JobBody.model_validate(minimal(JobBody.model_validate(body))) == JobBody.model_validate(body)


def test_what_is_empty_is_not_sent_and_what_is_no_number_is_left_to_the_check() -> None:
    form = read_form([("model", " tiny "), ("method", "wanda"), ("sparsity", "half"), ("pattern", "  ")])
    assert read_body(form) == {"model": "tiny", "method": "wanda", "sparsity": "half"}
    assert read_body(Form({"calibration.samples": ["128"], "recovery.steps": ["5"]})) == {}
    lines = Form({"evaluation.datasets": ["a", "b\n\n c "], "metadata": ["x=1\ny = 2"], "metadata.z": ["3"]})
    assert read_body(lines) == {"evaluation": {"datasets": ["a", "b", "c"]}, "metadata": {"x": "1", "y": "2", "z": "3"}}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("parameters.skip_layers", "[1,", "is not JSON"),
        ("parameters.skip_layers", "[NaN]", "NaN"),
        ("metadata", "commit", "write NAME=VALUE"),
        ("recovery.stages", "[" * 2000, "is not JSON"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read_body(Form({"method": ["wanda"], "recovery.method": ["lora"], name: [text]}))


class _SubmittedError(Exception):
    """Raised in place of sending a body."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What clients were about to submit."""
    bodies: list[dict[str, Any]] = []

    def submit(self: object, /, *, idempotency_key: str | None = None, **body: Any) -> None:
        bodies.append(body)
        raise _SubmittedError

    monkeypatch.setattr(Client, "submit", submit)
    monkeypatch.setenv("SECATEUR_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SECATEUR_API_KEY", "sct_nothing")
    return bodies


def _in_a_shell(command: str, program: str) -> tuple[list[str], str]:
    """What bash hands to a program: its arguments, and what it could read."""
    script = f"{program}() {{ printf '%s\\0' \"$@\"; printf '\\0'; cat; }}\n{command}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    arguments, _, read = done.stdout.partition("\0\0")
    return arguments.split("\0"), read


@pytest.mark.parametrize("body", BODIES[:2], ids=["sparsegpt", "magnitude"])
def test_curl_command_and_python_submit_that_body(body: dict[str, Any], sent: list[dict[str, Any]]) -> None:
    commands = commands_for(body, "http://127.0.0.1:9")
    arguments, _ = _in_a_shell(commands.curl, "curl")
    assert json.loads(arguments[arguments.index("-d") + 1]) == body and "http://127.0.0.1:9/v1/jobs" in arguments
    with pytest.raises(_SubmittedError):
        exec(commands.python, {})
    arguments, read = _in_a_shell(commands.cli, "secateur")
    result = CliRunner().invoke(app, arguments, input=read)
    assert isinstance(result.exception, _SubmittedError), result.output
    assert sent == [body, body]
