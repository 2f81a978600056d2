"""Text of strangers sets no title, clears no screen and turns no line round, whichever command shows it."""

import os
import pty
import subprocess
import threading
import unicodedata
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from typer.core import TyperGroup

from secateur.cli import command_line
from tests.client.command_line import COMMAND, Ended, RunHere, run_here
from tests.client.script import JOB_ID, KEY, Script, job, life, problem

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\x7f\u202elive\u2066\u200f\u2028end"
ESCAPED = r"\u001b]0;owned\u0007\u001b[2J\u000d\u009b31m\u007f\u202elive\u2066\u200f\u2028end"
TURNING = {*("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")}
SERVING = {"serve", "stop", "demo", "samples", "doctor", "reproduce", "teams", "store", "prune", "models new"}
"""Commands that act on this machine, and ask no server."""


def obeyed(text: str) -> set[str]:
    """The characters of a text that a terminal does not just show."""
    return {
        each
        for each in set(text) - {"\n", "\t"}
        if unicodedata.category(each) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(each) in TURNING
    } | set(text) & {"\u200e", "\u200f", "\u061c"}


def every_command(group: Any = None, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands that do something, with their names."""
    for name, command in (group or command_line()).commands.items():
        if isinstance(command, TyperGroup):
            yield from every_command(command, *names, name)
        else:
            yield (*names, name), command


def is_harmless(done: Ended) -> bool:
    assert not obeyed(done.out + done.err), (done.out, done.err)
    return ESCAPED in done.out + done.err


def test_no_command_repeats_a_hostile_option_raw(scripted: RunHere) -> None:
    for names, _ in every_command():
        done = scripted(*names, f"--{HOSTILE}")
        assert done.code == 2 and "owned" in done.err and not obeyed(done.out + done.err), names


class _Refusing(BaseHTTPRequestHandler):
    """Answers each request with a refusal in hostile words."""

    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        refusal = problem(422, HOSTILE, HOSTILE, param=HOSTILE)
        self.send_response(refusal.status_code)
        self.send_header("Content-Length", str(len(refusal.body)))
        self.end_headers()
        self.wfile.write(refusal.body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = refuse

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_no_command_repeats_the_words_of_a_server_raw(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("{}")
    told = set()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        here = run_here(f"http://127.0.0.1:{server.server_port}", KEY, monkeypatch, capsys)
        for names, command in every_command():
            if {names[0], " ".join(names)} & SERVING:
                continue
            given = [value for each in command.params if each.required for value in _value(each)]
            if is_harmless(here(*names, *given)):
                told.add(names)
        server.shutdown()
    assert len(told) > 40 and {("jobs", "attempts"), ("keys", "list"), ("audit",), ("models", "list")} <= told


def _value(parameter: Any) -> list[str]:
    kind = parameter.type_descriptor.annotation
    value = next(iter(get_args(kind)), HOSTILE)
    value = "file" if kind is Path else value if isinstance(value, str) else HOSTILE
    return [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]


@pytest.mark.parametrize("command", ["show", "jobs", "report", "watch", "summary", "cancel"])
def test_what_others_wrote_about_jobs_is_escaped(scripted: RunHere, script: Script, command: str) -> None:
    error = {"code": "out_of_memory", "message": HOSTILE, "param": None, "retryable": False}
    script.job = job(model=HOSTILE, metadata={"by": HOSTILE}, error=error, status="failed")
    script.jobs = [script.job]
    script.events = life("failed")
    script.events[7]["data"]["message"] = HOSTILE
    script.report = {"generations": [{"prompt": HOSTILE, "dense": HOSTILE, "pruned": HOSTILE}], "notes": [HOSTILE]}
    script.report["metrics"] = script.job["metrics"]
    done = scripted(command, *([] if command == "jobs" else [JOB_ID]))
    assert is_harmless(done) or command in ("summary", "cancel")


def test_what_others_wrote_about_keys_and_jobs_is_escaped_on_a_terminal(
    here: RunHere, live_api: httpx.Client, admin_key: str, job_body: dict[str, Any]
) -> None:
    assert not obeyed(here("keys", "create", "--name", HOSTILE, "--role", "viewer", "--json").out)
    live_api.post("/v1/jobs", json=job_body | {"metadata": {"by": HOSTILE}}).raise_for_status()
    named = [each for each in here("keys", "list", "--json").json if each["name"] == HOSTILE]
    assert len(named) == 1, "the document says the same, in JSON's own escapes"
    variables = {**os.environ, "SECATEUR_URL": str(live_api.base_url), "SECATEUR_API_KEY": admin_key, "TERM": "xterm"}
    for command in (["keys", "list"], ["audit"], ["jobs"], ["show", live_api.get("/v1/jobs").json()["data"][0]["id"]]):
        assert is_harmless(here(*command)) or command == ["jobs"]
        ours, theirs = pty.openpty()
        with subprocess.Popen([COMMAND, *command], env={**variables, "COLUMNS": "400"}, stdout=theirs, stderr=theirs):
            os.close(theirs)
            drawn = _drawn(ours)
        assert "\x1b]0" not in drawn and "\x1b[2J" not in drawn and not obeyed(drawn) - {"\x1b", "\r"}, drawn
        assert "owned" in drawn or command == ["jobs"], drawn


def _drawn(terminal: int) -> str:
    """All that a process wrote to its terminal."""
    drawn = b""
    try:
        while piece := os.read(terminal, 65536):
            drawn += piece
    except OSError:
        pass  # how a pty says that the other end is closed
    os.close(terminal)
    return drawn.decode()
